package cli

import (
	"strings"
	"testing"
)

func TestGuard(t *testing.T) {
	const nsec = "nsec1vl029mgpspedva04g90vltkh6fvh240zqtv9k0t9af8935ke9laqsnlfe5"
	const hint = " holds a private key (not shown). Nothing here needs one: use the npub."
	const inShell = hint + " If it was typed in a shell it is in the history now."
	for _, c := range []struct {
		name    string
		args    []string
		environ []string
		want    string
	}{
		{"a flag's value", []string{"run", "--author", nsec}, nil, "--author" + inShell},
		{"joined", []string{"run", "--author=" + nsec}, nil, "--author" + inShell},
		{"upper case", []string{"run", "--author", strings.ToUpper(nsec)}, nil, "--author" + inShell},
		{"as a URI", []string{"run", "--author", "nostr:" + nsec}, nil, "--author" + inShell},
		{"as an upper-case URI", []string{"run", "--author", strings.ToUpper("nostr:" + nsec)}, nil, "--author" + inShell},
		{"encrypted", []string{"run", "--author", "ncryptsec1qgg9947rlpvqu76pj5ecreduf9jxhselq2nae2kgh"}, nil, "--author" + inShell},
		{"among others", []string{"run", "--author", "a," + nsec}, nil, "--author" + inShell},
		{"with white space", []string{"run", "--author", " \n" + nsec}, nil, "--author" + inShell},
		{"cut short", []string{"run", "--author", "nsec1vl"}, nil, "--author" + inShell},
		{"in a URL", []string{"run", "--source", "wss://" + nsec + "@a.example.com"}, nil, "--source" + inShell},
		{"alone", []string{nsec}, nil, "argument 1" + inShell},
		{"behind a value", []string{"run", "--author=a", nsec}, nil, "argument 3" + inShell},
		{"behind dashes", []string{"import", "--", nsec}, nil, "argument 3" + inShell},
		{"as a flag", []string{"run", "--" + nsec}, nil, "argument 2" + inShell},
		{"as a flag with a value", []string{"run", "-" + nsec + "=x"}, nil, "argument 2" + inShell},
		{"a flag named so", []string{"run", "--nsec", "abc"}, nil, "--nsec: nothing here needs a private key or another secret (its value is not shown). If it was typed in a shell it is in the history now."},
		{"a flag named so, joined", []string{"run", "--private-key=abc"}, nil, "--private-key: nothing here needs a private key or another secret (its value is not shown). If it was typed in a shell it is in the history now."},
		{"a variable", nil, []string{"HOME=/x", "REBROADCASTR_AUTHOR=a " + nsec}, "REBROADCASTR_AUTHOR" + hint},
		{"a variable of any case", nil, []string{"rebroadcastr_x=nostr:" + strings.ToUpper(nsec)}, "rebroadcastr_x" + hint},
		{"a variable's name", nil, []string{"REBROADCASTR_" + nsec + "=1"}, "a REBROADCASTR_… variable's name" + hint},
		{"a variable named so", nil, []string{"REBROADCASTR_NSEC=67de"}, "REBROADCASTR_NSEC: nothing here needs a private key or another secret (its value is not shown)"},

		{"somebody else's variable", nil, []string{"NSEC=" + nsec}, ""},
		{"public keys", []string{"run", "--author", "npub1sg6plzptd64u62a878hep2kev88swjh3tw00gjsfl8f237lmu63q0uf63m", "--since", "-30d"}, []string{"REBROADCASTR_SOURCE=nos.lol"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := guard(append([]string{"rebroadcastr"}, c.args...), c.environ)
			got := ""
			if err != nil {
				got = err.Error()
			}
			if got != c.want {
				t.Errorf("says %q, want %q", got, c.want)
			}
		})
	}
}
