package cli

import (
	"slices"
	"testing"
)

func TestStrayVariables(t *testing.T) {
	got := strayVariables((&program{}).app(), []string{"HOME=/root", "REBROADCASTR_ARCHIVE=/a", "REBROADCASTR_GIVE_UP=5m", "REBROADCASTR_ARCHIV=/a", "REBROADCASTR_ZZZZZZZZ=1"})
	want := []string{
		"REBROADCASTR_ARCHIV stands for no flag and is ignored; did you mean REBROADCASTR_ARCHIVE?",
		"REBROADCASTR_ZZZZZZZZ stands for no flag and is ignored",
	}
	if !slices.Equal(got, want) {
		t.Errorf("stray variables: %q, want %q", got, want)
	}
}
