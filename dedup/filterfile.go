package dedup

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
)

// A filter is kept from a clean stop to the next start in one file of the index's directory, integers little-endian:
//
//	"RBFILTER" | format u32 = 1 | layers u32 | version of the index u64 | each layer: ids u64, words u64 | all words | CRC-32C of all before
//
// It is of use only to an index of exactly that version, and each put makes a new one. So it needs no fsync and nobody has to remove it:
// one that is old, torn or of another format is as none, and the ids are read from Badger when there is need. None is written after a
// commit that failed: another put may then make the same version again.
const (
	filterFile   = "FILTER"
	filterMagic  = "RBFILTER"
	filterFormat = 1
	filterHead   = len(filterMagic) + 4 + 4 + 8
	maxLayers    = 64
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// save writes f for an index of this version.
func (f *filter) save(dir string, version uint64) (err error) {
	path := filepath.Join(dir, filterFile)
	out, err := os.Create(path + ".new")
	if err != nil {
		return err
	}
	err = f.writeTo(out, version)
	if err = errors.Join(err, out.Close()); err == nil {
		err = os.Rename(out.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(out.Name()))
	}
	return nil
}

func (f *filter) writeTo(out io.Writer, version uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	sum := crc32.New(castagnoli)
	w := bufio.NewWriterSize(io.MultiWriter(out, sum), 64<<10)
	layers := *f.layers.Load()
	b := append(make([]byte, 0, 4096), filterMagic...)
	b = binary.LittleEndian.AppendUint32(b, filterFormat)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(layers)))
	b = binary.LittleEndian.AppendUint64(b, version)
	for _, l := range layers {
		b = binary.LittleEndian.AppendUint64(b, l.ids)
		b = binary.LittleEndian.AppendUint64(b, uint64(len(l.words)))
	}
	w.Write(b) // its error is Flush's, here and below
	for _, l := range layers {
		for block := l.words; len(block) > 0; block = block[blockWords:] {
			b = b[:0]
			for _, word := range block[:blockWords] {
				b = binary.LittleEndian.AppendUint64(b, word)
			}
			w.Write(b)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := out.Write(binary.LittleEndian.AppendUint32(nil, sum.Sum32()))
	return err
}

// loadFilter reads what save has written for an index of this version; nil if there is nothing of use.
func loadFilter(dir string, version uint64) *filter {
	in, err := os.Open(filepath.Join(dir, filterFile))
	if err != nil {
		return nil
	}
	defer in.Close() // read only
	sum := crc32.New(castagnoli)
	r := io.TeeReader(bufio.NewReaderSize(in, 64<<10), sum)
	var head [filterHead]byte
	if _, err := io.ReadFull(r, head[:]); err != nil || string(head[:len(filterMagic)]) != filterMagic ||
		binary.LittleEndian.Uint32(head[8:]) != filterFormat || binary.LittleEndian.Uint64(head[16:]) != version {
		return nil
	}
	n := binary.LittleEndian.Uint32(head[12:])
	if n == 0 || n > maxLayers {
		return nil
	}
	layers, size := make([]*filterLayer, n), uint64(0)
	for i := range layers {
		var b [16]byte
		if _, err := io.ReadFull(r, b[:]); err != nil {
			return nil
		}
		words := binary.LittleEndian.Uint64(b[8:])
		if size += words; words == 0 || words%blockWords != 0 || words > maxFilter/8 || size > maxFilter/8 {
			return nil
		}
		layers[i] = &filterLayer{words: make([]uint64, words), ids: binary.LittleEndian.Uint64(b[:])}
	}
	b := make([]byte, 32<<10)
	for _, l := range layers {
		for words := l.words; len(words) > 0; {
			part := b[:min(len(b), 8*len(words))]
			if _, err := io.ReadFull(r, part); err != nil {
				return nil
			}
			for i := 0; i < len(part); i += 8 {
				words[i/8] = binary.LittleEndian.Uint64(part[i:])
			}
			words = words[len(part)/8:]
		}
	}
	want := sum.Sum32()
	if _, err := io.ReadFull(r, b[:4]); err != nil || binary.LittleEndian.Uint32(b) != want {
		return nil
	}
	f := new(filter)
	f.layers.Store(&layers)
	return f
}
