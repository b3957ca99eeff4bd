package archive_test

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"rebroadcastr/archive"
)

func TestLines(t *testing.T) {
	long := strings.Repeat("x", 200_000)
	tests := []struct {
		name, in string
		limit    int
		want     []string // number:offset:text
	}{
		{"nothing", "", 100, nil},
		{"one", "{}\n", 100, []string{"1:0:{}"}},
		{"no final newline", "{1}\n{2}", 100, []string{"1:0:{1}", "2:4:{2}"}},
		{"blank lines", "\n  \n{1}\n\r\n\t\n{2}\n\n", 100, []string{"3:4:{1}", "6:12:{2}"}},
		{"carriage returns", "{1}\r\n{2}\r\n", 100, []string{"1:0:{1}", "2:5:{2}"}},
		{"byte order mark", "\ufeff{1}\n{2}\n", 100, []string{"1:0:{1}", "2:7:{2}"}},
		{"other line ends are content", "{\u2028\u0085\v\f}\n", 100, []string{"1:0:{\u2028\u0085\v\f}"}},
		{"longer than a buffer", long + "\n{2}\n", 1 << 20, []string{"1:0:" + long, "2:200001:{2}"}},
		{"too long", "{1}\n" + long + "\n{3}\n", 100_000, []string{"1:0:{1}", "2:4:TOO LONG 200000", "3:200005:{3}"}},
		{"too long by one", "12345\n123456\n", 5, []string{"1:0:12345", "2:6:TOO LONG 6"}},
		{"too long and last", long, 1000, []string{"1:0:TOO LONG 200000"}},
	}
	for _, tt := range tests {
		for name, r := range map[string]io.Reader{
			"": strings.NewReader(tt.in), "by bytes": iotest.OneByteReader(strings.NewReader(tt.in)),
			"error with the data": iotest.DataErrReader(strings.NewReader(tt.in)),
		} {
			t.Run(tt.name+" "+name, func(t *testing.T) {
				lines := archive.Lines(r, tt.limit)
				var got []string
				for {
					l, err := lines.Next()
					if err == io.EOF {
						break
					}
					if err != nil {
						t.Fatal(err)
					}
					text := string(l.Text)
					if l.TooLong {
						text = fmt.Sprintf("TOO LONG %d", l.Length)
					}
					got = append(got, fmt.Sprintf("%d:%d:%s", l.Number, l.Offset, text))
				}
				if strings.Join(got, "\n") != strings.Join(tt.want, "\n") {
					t.Errorf("got %.200q, want %.200q", got, tt.want)
				}
			})
		}
	}
}

func TestLinesGivesTheReadersError(t *testing.T) {
	lines := archive.Lines(io.MultiReader(strings.NewReader("{1}\n{2"), iotest.ErrReader(io.ErrClosedPipe)), 100)
	if l, err := lines.Next(); err != nil || string(l.Text) != "{1}" {
		t.Errorf("first line %q, %v", l.Text, err)
	}
	if _, err := lines.Next(); err != io.ErrClosedPipe {
		t.Errorf("error %v, want the reader's", err)
	}
}

func FuzzLines(f *testing.F) {
	f.Add("a\n\nb", 3)
	f.Add("1234567890\ny\r\n", 5) // small: the fuzzer would spend its time on shrinking a large one
	f.Fuzz(func(t *testing.T, in string, limit int) {
		limit = max(0, min(limit, 1<<20))
		lines := archive.Lines(strings.NewReader(in), limit)
		split := strings.Split(in, "\n")
		for {
			l, err := lines.Next()
			if err == io.EOF {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want := split[l.Number-1]
			if in[l.Offset:][:l.Length] != want {
				t.Errorf("line %d is said to be %q, want %q", l.Number, in[l.Offset:][:l.Length], want)
			}
			if l.TooLong != (len(want) > limit) || !l.TooLong && !strings.Contains(want, string(l.Text)) {
				t.Errorf("line %d of %d bytes, limit %d: too long %v, text %q", l.Number, len(want), limit, l.TooLong, l.Text)
			}
		}
	})
}
