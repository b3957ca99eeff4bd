package sources

import "rebroadcastr/event"

// unsaidMessage in bytes is what a message may be where the relay does not say: strfry's default.
const unsaidMessage = 128 << 10

// bundles puts live groups together where the relay allows fewer subscriptions than there are, one left over for pages. strfry
// answers the ones too many with an EOSE, and a NOTICE that names none of them, and sends nothing that comes later: nobody could
// tell which of them stand. Of what comes live nothing depends on the filter that it came by.
func (v *visit) bundles(groups []group) (out [][]group) {
	limits := v.sess.Info().Limits
	most := len(groups)
	if limits.MaxSubscriptions > 0 && !v.s.oneFilter.Load() {
		most = max(1, min(most, limits.MaxSubscriptions-1))
	}
	room := unsaidMessage
	if limits.MaxMessageLength > 0 {
		room = limits.MaxMessageLength
	}
	each := (len(groups) + most - 1) / max(most, 1)
	size := 0
	for _, g := range groups {
		n := len(g.filter.AppendJSON(nil, 0)) + 1
		if last := len(out) - 1; last >= 0 && len(out[last]) < each && size+n <= room-roomForRest {
			out[last] = append(out[last], g)
			size += n
			continue
		}
		out, size = append(out, []group{g}), n
	}
	return out
}

func filters(groups []group) (out []event.Filter) {
	for _, g := range groups {
		out = append(out, g.filter)
	}
	return out
}

// asks names what groups ask for.
func asks(groups []group) (name string) {
	for _, g := range groups {
		key := g.filter.Key()
		name += string(key[:])
	}
	return name
}
