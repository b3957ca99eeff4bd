package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"rebroadcastr/e2e/child"
)

// slowVariable makes this binary the program on a slow disk, as beSlow says.
const slowVariable = "REBROADCASTR_BENCH_SLOW"

// slowDisk has every fsync of a program take longer, whichever part of it asks: the log's fdatasync, the state's, the index's
// msync. The kernel tells each to this process (seccomp's user notification) and holds the thread that made it until it is told
// to go on. Other calls cost the program a few more instructions, where a tracer would stop it at each.
type slowDisk struct {
	delay   time.Duration
	ln      *net.UnixListener
	serving sync.WaitGroup
	ended   sync.Once

	mu   sync.Mutex
	made int   // fsyncs that were held
	err  error // what went wrong in serve
}

// put has a program that is not started yet run on the slow disk. Its socket is made in dir.
func (s *slowDisk) put(o *child.Options, dir string) (err error) {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	path := filepath.Join(dir, "fsyncs")
	if s.ln, err = net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"}); err != nil {
		return err
	}
	o.Env = append(o.Env, slowVariable+"="+o.Binary, slowVariable+"_SOCKET="+path)
	o.Binary = self
	s.serving.Go(func() {
		if err := s.serve(); err != nil {
			s.mu.Lock()
			s.err = err
			s.mu.Unlock()
		}
	})
	return nil
}

// end is called when the program has ended. That nothing was held is an error: the disk was not slow.
func (s *slowDisk) end() (err error) {
	s.ended.Do(func() { err = s.ln.Close() })
	s.serving.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.made == 0 && s.err == nil {
		err = errors.Join(err, errors.New("the program made no fsync that could be held"))
	}
	return errors.Join(err, s.err)
}

// fsyncs is how many were held.
func (s *slowDisk) fsyncs() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.made
}

// notification and answer are the kernel's struct seccomp_notif and seccomp_notif_resp.
type notification struct {
	id         uint64
	pid, flags uint32
	call       struct {
		number int32
		arch   uint32
		at     uint64
		args   [6]uint64
	}
}

type answer struct {
	id    uint64
	value int64
	errno int32
	flags uint32
}

const goOn = 1 // SECCOMP_USER_NOTIF_FLAG_CONTINUE

// serve takes the notifications of one program until it has ended.
func (s *slowDisk) serve() error {
	c, err := s.ln.AcceptUnix()
	if err != nil {
		return nil // it never came so far; its own end says why
	}
	defer c.Close() //nolint:errcheck // read only
	rights := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := c.ReadMsgUnix(make([]byte, 1), rights)
	if err != nil {
		return fmt.Errorf("hear of fsyncs: %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(rights[:n])
	if err != nil || len(messages) != 1 {
		return fmt.Errorf("hear of fsyncs: %d messages, %w", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return fmt.Errorf("hear of fsyncs: %w", err)
	}
	defer unix.Close(fds[0]) //nolint:errcheck // read only
	var held sync.WaitGroup
	defer held.Wait()
	for {
		ready := []unix.PollFd{{Fd: int32(fds[0]), Events: unix.POLLIN}}
		if _, err := unix.Poll(ready, -1); err == unix.EINTR {
			continue
		} else if err != nil {
			return fmt.Errorf("wait for an fsync: %w", err)
		}
		if ready[0].Revents&unix.POLLIN == 0 {
			return nil // no thread is left
		}
		var call notification
		if err := control(fds[0], unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&call)); err == unix.ENOENT || err == unix.EINTR {
			continue // its thread was killed
		} else if err != nil {
			return fmt.Errorf("hear of an fsync: %w", err)
		}
		s.mu.Lock()
		s.made++
		s.mu.Unlock()
		held.Go(func() {
			time.Sleep(s.delay)
			a := answer{id: call.id, flags: goOn}
			control(fds[0], unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&a)) //nolint:errcheck // its thread may be gone
		})
	}
}

func control(fd int, request uintptr, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}

// beSlow becomes the program that slowVariable names, with the arguments of this process, once the bench hears of its fsyncs.
func beSlow() error {
	binary := os.Getenv(slowVariable)
	runtime.LockOSThread() // the filter is this thread's, and it is this one that becomes the program
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("give up new privileges: %w", err)
	}
	filter := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}} // the call's number
	slow := []uint32{unix.SYS_FSYNC, unix.SYS_FDATASYNC, unix.SYS_MSYNC, unix.SYS_SYNC_FILE_RANGE}
	for i, number := range slow {
		filter = append(filter, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: uint8(len(slow) - i), K: number})
	}
	filter = append(filter,
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF})
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return fmt.Errorf("ask the kernel for a notification of each fsync: %w", errno)
	}
	c, err := net.Dial("unix", os.Getenv(slowVariable+"_SOCKET"))
	if err != nil {
		return err
	}
	if _, _, err := c.(*net.UnixConn).WriteMsgUnix([]byte{0}, unix.UnixRights(int(fd)), nil); err != nil {
		return err
	}
	if err := errors.Join(c.Close(), unix.Close(int(fd))); err != nil {
		return err
	}
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, slowVariable) })
	return syscall.Exec(binary, append([]string{binary}, os.Args[1:]...), env)
}
