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

// userInfo finds a name or password in a URL.
var userInfo = regexp.MustCompile(`//[^/?#\s"]+@`)

// Redact replaces what looks like a private key, or like a name and password in a URL.
func Redact(text string) string {
	return userInfo.ReplaceAllString(privateKey.ReplaceAllString(text, "(private key, not shown)"), "//…@")
}

// NoKeyNeeded is what to say to someone who gave a private key.
const NoKeyNeeded = "holds a private key (not shown). Nothing here needs one: use the npub."

// secretNames are the names, in lower case and without separators, that people give to secrets.
var secretNames = []string{"secret", "privkey", "privatekey", "seckey", "mnemonic", "passphrase", "seedphrase"}

// SecretName reports whether a key, a flag or a variable is named like a secret.
func SecretName(name string) bool {
	name = strings.ToLower(name)
	for _, word := range strings.FieldsFunc(name, func(r rune) bool { return r < 'a' || r > 'z' }) {
		// Not anywhere in it: there is an "insecure".
		if strings.HasPrefix(word, "nsec") || strings.HasSuffix(word, "nsec") || strings.Contains(word, "ncryptsec") {
			return true
		}
	}
	joined := strings.NewReplacer("-", "", "_", "", ".", "", " ", "").Replace(name)
	for _, s := range secretNames {
		if strings.Contains(joined, s) {
			return true
		}
	}
	return false
}
