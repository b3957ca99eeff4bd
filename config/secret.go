package config

import (
	"regexp"
	"strings"
)

// privateKey finds NIP-19 and NIP-49 private keys, whole or cut short, wherever they stand in a text. A mistyped key is
// still a secret, so characters outside bech32's alphabet do not end it.
var privateKey = regexp.MustCompile(`(?i)n(?:crypt)?sec1[0-9a-z]{8,}`)

// HoldsPrivateKey reports whether text holds something that looks like a private key.
func HoldsPrivateKey(text string) bool { return privateKey.MatchString(text) }

// Redact replaces what looks like a private key.
func Redact(text string) string { return privateKey.ReplaceAllString(text, "(private key, not shown)") }

// NoKeyNeeded is what to say to someone who gave a private key.
const NoKeyNeeded = "holds a private key (not shown). Nothing here needs one: use the npub."

// secretNames are the names, in lower case and without separators, that people give to secrets.
var secretNames = []string{"nsec", "ncryptsec", "secret", "privkey", "privatekey", "seckey", "mnemonic", "passphrase", "seedphrase"}

// SecretName reports whether a key, a flag or a variable is named like a secret.
func SecretName(name string) bool {
	name = strings.ToLower(strings.NewReplacer("-", "", "_", "", ".", "", " ", "").Replace(name))
	for _, s := range secretNames {
		if strings.Contains(name, s) {
			return true
		}
	}
	return false
}
