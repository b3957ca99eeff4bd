package sources

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// window is a stretch of created_at in unix seconds, both ends inside.
type window struct{ lo, hi int64 }

// windows are what is proven: sorted, apart from each other by at least one second.
type windows []window

// add joins w in.
func (ws windows) add(w window) windows {
	if w.lo > w.hi {
		return ws
	}
	out := make(windows, 0, len(ws)+1)
	for _, v := range ws {
		if v.hi < w.lo-1 || w.hi < v.lo-1 {
			out = append(out, v)
			continue
		}
		w = window{min(v.lo, w.lo), max(v.hi, w.hi)}
	}
	out = append(out, w)
	slices.SortFunc(out, func(a, b window) int {
		if a.lo < b.lo {
			return -1
		}
		return 1
	})
	return out
}

// missing is what of w is not proven, newest first.
func (ws windows) missing(w window) windows {
	var out windows
	for i := len(ws) - 1; i >= 0 && w.lo <= w.hi; i-- {
		v := ws[i]
		if v.lo > w.hi {
			continue
		}
		if v.hi < w.lo {
			break
		}
		if v.hi < w.hi {
			out = append(out, window{v.hi + 1, w.hi})
		}
		w.hi = v.lo - 1
	}
	if w.lo <= w.hi {
		out = append(out, w)
	}
	return out
}

// without is what of ws is not in void.
func (ws windows) without(void windows) (out windows) {
	for _, w := range ws {
		for _, left := range void.missing(w) {
			out = out.add(left)
		}
	}
	return out
}

// encode is two 8-byte numbers a window, big-endian.
func (ws windows) encode() []byte {
	b := make([]byte, 0, 16*len(ws))
	for _, w := range ws {
		b = binary.BigEndian.AppendUint64(b, uint64(w.lo))
		b = binary.BigEndian.AppendUint64(b, uint64(w.hi))
	}
	return b
}

func decodeWindows(b []byte) (windows, error) {
	if len(b)%16 != 0 {
		return nil, fmt.Errorf("decode proven windows: %d bytes", len(b))
	}
	var ws windows
	for ; len(b) > 0; b = b[16:] {
		w := window{int64(binary.BigEndian.Uint64(b)), int64(binary.BigEndian.Uint64(b[8:]))}
		if w.lo < 0 || w.lo > w.hi || len(ws) > 0 && w.lo <= ws[len(ws)-1].hi {
			return nil, fmt.Errorf("decode proven windows: %d to %d", w.lo, w.hi)
		}
		ws = append(ws, w)
	}
	return ws, nil
}
