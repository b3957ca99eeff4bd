package main_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"rebroadcastr/config"
	"rebroadcastr/policy"
)

// TestReadme holds the README's tables to the code they describe.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"the config reference":         "```yaml\n" + string(config.Example) + "```\n",
		"the table of what is kept":    policyTable(),
		"the test command of .ci/run":  "```sh\nmake test\n```\n",
		"the first command, with tags": `go run -tags "$(go env CGO_ENABLED | sed s/1/libsecp256k1/)" . backfill`,
	} {
		if !strings.Contains(string(readme), want) {
			t.Errorf("README.md lacks %s, which is now:\n%s", name, want)
		}
	}
}

func policyTable() string {
	var b strings.Builder
	b.WriteString("| row | what | NIP | why | `send:` |\n|---|---|---|---|---|\n")
	for _, r := range policy.Table() {
		send := "yes"
		if r.Never {
			send = "never"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", r.Name, r.Rule, r.NIP, r.Reason, send)
	}
	return b.String()
}
