package archive

import "fmt"

// Damage is a line that is not a genuine event.
type Damage struct {
	Segment string // file name
	Offset  int64  // in the uncompressed text
	Length  int64  // without the newline
	Err     error
}

func (d *Damage) Error() string {
	return fmt.Sprintf("%s: line at byte %d (%d bytes): %v", d.Segment, d.Offset, d.Length, d.Err)
}

func (d *Damage) Unwrap() error { return d.Err }
