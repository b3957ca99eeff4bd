package config

import _ "embed"

// Example is the annotated example file. Every value in it is the default.
//
//go:embed example.yaml
var Example []byte
