package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"rebroadcastr/cli"
)

// clockVariable names the file that says by how many seconds the clock of a re-executed test binary is wrong. Where it is
// set, the test binary is the program.
const clockVariable = "E2E_CLOCK"

// slowVariable is how many milliseconds each fsync of a segment takes there.
const slowVariable = "E2E_FSYNC"

// gateVariable is the socket where each fsync of a segment is asked for there.
const gateVariable = "E2E_FSYNC_GATE"

// beTheProgram runs the command line instead of the tests, by a clock that follows the file and with a journal beside it.
func beTheProgram(file string) int {
	var offset atomic.Int64
	read := func() {
		// A file that is being replaced is read again in a moment.
		if text, err := os.ReadFile(file); err == nil {
			if n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil {
				offset.Store(n)
			}
		}
	}
	read()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				read()
			case <-ctx.Done():
				return
			}
		}
	}()
	defer func() { cancel(); <-done }()
	files, err := openJournal(filepath.Join(filepath.Dir(file), "journal"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if ms, err := strconv.Atoi(os.Getenv(slowVariable)); err == nil {
		files.slow = time.Duration(ms) * time.Millisecond
	}
	files.gate = os.Getenv(gateVariable)
	return cli.Main(context.Background(), cli.Process{
		Args: os.Args, LookupEnv: os.LookupEnv, Environ: os.Environ(), Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		Now:   func() time.Time { return stepped(time.Now(), offset.Load()) },
		Files: files,
	})
}

// stepped moves a time's wall clock and leaves its monotonic reading alone, as a step of the machine's clock does: what was
// taken before and after it is still the right time apart. Time.Add would move both.
func stepped(t time.Time, seconds int64) time.Time {
	const hasMonotonic, nanosecondBits = 1 << 63, 30
	inside := (*struct {
		wall uint64 // 1 bit, 33 bits of seconds since 1885, 30 bits of nanoseconds
		ext  int64
		loc  *time.Location
	})(unsafe.Pointer(&t))
	if inside.wall&hasMonotonic == 0 {
		panic("a time without a monotonic reading")
	}
	inside.wall += uint64(seconds << nanosecondBits)
	return t
}

// TestStepped: the layout of time.Time is what stepped takes it for.
func TestStepped(t *testing.T) {
	now := time.Now()
	for _, d := range []int64{0, 1, -1, 3600, -86400, 400 * 86400} {
		got := stepped(now, d)
		if want := now.Unix() + d; got.Unix() != want || got.Nanosecond() != now.Nanosecond() || got.Sub(now) != 0 {
			t.Errorf("%s by %d s: %s, %s later; want unix %d and no time between", now, d, got, got.Sub(now), want)
		}
	}
}

// clock is the world's time and how wrong the child's is. The world's goes forward only; its sources date events by it.
type clock struct {
	file     string
	world    atomic.Int64 // seconds ahead of the machine's
	wrong    atomic.Int64 // seconds that the child's is ahead of the world's
	earliest atomic.Int64 // unix; the least and the most that the child's clock has shown
	latest   atomic.Int64
}

func newClock(file string) (*clock, error) {
	c := &clock{file: file}
	now := time.Now().Unix()
	c.earliest.Store(now)
	c.latest.Store(now)
	return c, c.write()
}

// now is the world's time.
func (c *clock) now() int64 { return time.Now().Unix() + c.world.Load() }

// pass lets time pass in the world, for the child too.
func (c *clock) pass(d time.Duration) error {
	c.world.Add(int64(d / time.Second))
	return c.write()
}

// set makes the child's clock wrong.
func (c *clock) set(wrong time.Duration) error {
	c.wrong.Store(int64(wrong / time.Second))
	return c.write()
}

func (c *clock) write() error {
	offset := c.world.Load() + c.wrong.Load()
	if now := time.Now().Unix() + offset; now < c.earliest.Load() {
		c.earliest.Store(now)
	}
	c.latest.Store(max(c.latest.Load(), c.shows()))
	tmp := c.file + ".new"
	if err := os.WriteFile(tmp, []byte(fmt.Sprint(offset)), 0o600); err != nil {
		return fmt.Errorf("write the clock: %w", err)
	}
	return os.Rename(tmp, c.file)
}

// shows is the child's time.
func (c *clock) shows() int64 { return c.now() + c.wrong.Load() }

// reached is the latest time that the child's clock has shown or shows.
func (c *clock) reached() int64 { return max(c.latest.Load(), c.shows()) }
