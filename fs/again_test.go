package fs

import (
	"fmt"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/ionserver/ionclient"
)

// TestOpenWhileOthersRemove: an open(2) that may create the file opens it, whatever
// others do with the name.
func TestOpenWhileOthersRemove(t *testing.T) {
	r := newRig(t, 2)
	const times = 40
	flags := []int{unix.O_CREAT | unix.O_RDWR, unix.O_CREAT | unix.O_RDONLY, unix.O_CREAT | unix.O_WRONLY | unix.O_TRUNC}
	var opening, removing sync.WaitGroup
	over := make(chan struct{})
	for node := range 2 {
		for range 2 {
			remover := startWorker(t)
			removing.Go(func() {
				for {
					select {
					case <-over:
						return
					default:
					}
					if e := remover.try(request{Op: "unlink", Path: r.path(node, "f")}).Errno; e != 0 && e != syscall.ENOENT {
						t.Errorf("unlink: %v", e)
						return
					}
				}
			})
		}
		for i := range flags {
			opener := startWorker(t)
			opening.Go(func() {
				for n := range times {
					got := opener.try(request{Op: "open", Path: r.path(node, "f"), Flags: flags[(n+i)%len(flags)], Mode: 0o644})
					if got.Errno != 0 {
						t.Errorf("node %d, open %d: %v", node, n, got.Errno)
						return
					}
					opener.do(request{Op: "close", FD: int(got.N)})
				}
			})
		}
	}
	opening.Wait()
	close(over)
	removing.Wait()
}

// TestOpenFoundChecksPermission: nobody gets at the file of another because it was
// made at the wrong moment.
func TestOpenFoundChecksPermission(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to be two users")
	}
	r := newRig(t, 2)
	const times = 100
	mine, other := startWorker(t), startWorkerAs(t, &syscall.Credential{Uid: 1234, Gid: 1234})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range times {
			got := mine.try(request{Op: "open", Path: r.path(0, "f"), Flags: unix.O_CREAT | unix.O_EXCL | unix.O_WRONLY, Mode: 0o600})
			if got.Errno == 0 {
				mine.try(request{Op: "write", FD: int(got.N), Data: []byte("secret")})
				mine.try(request{Op: "close", FD: int(got.N)})
			}
			mine.try(request{Op: "unlink", Path: r.path(0, "f")})
		}
	}()
	opened, refused := 0, 0
	for over := false; !over; {
		got := other.try(request{Op: "open", Path: r.path(1, "f"), Flags: unix.O_CREAT | unix.O_RDWR, Mode: 0o600})
		switch got.Errno {
		case 0:
			opened++
			require.Empty(t, other.read(int(got.N), 0, 10))
			other.do(request{Op: "close", FD: int(got.N)})
		case syscall.EACCES:
			refused++
		default:
			require.Failf(t, "open", "%v", got.Errno)
		}
		select {
		case <-done:
			over = true
		default:
		}
	}
	require.NotZero(t, opened)
	require.NotZero(t, refused)
}

func TestMayOpen(t *testing.T) {
	for _, tt := range []struct {
		mode, uid, gid, flags uint32
		want                  permission
	}{
		{0o600, 1, 9, unix.O_RDWR, yes},
		{0o400, 1, 9, unix.O_RDONLY, yes},
		{0o400, 1, 9, unix.O_WRONLY, no},
		{0o400, 1, 9, unix.O_RDONLY | unix.O_TRUNC, no},
		{0o066, 1, 2, unix.O_RDONLY, no},
		{0o060, 9, 2, unix.O_RDWR, yes},
		{0o604, 9, 2, unix.O_RDONLY, no},
		{0o600, 9, 9, unix.O_RDONLY, no},
		{0o066, 9, 9, unix.O_RDWR, yes},
		{0o006, 9, 9, unix.O_RDWR, maybe}, // not, if of the group
		{0o060, 9, 9, unix.O_RDWR, maybe}, // if of the group
		{0o600, 0, 0, unix.O_RDWR, maybe}, // by capability
		{0o200, 0, 0, unix.O_WRONLY, maybe},
		{0o666, 0, 0, unix.O_RDWR, yes},
	} {
		a := ionclient.Attr{Mode: tt.mode, UID: 1, GID: 2}
		require.Equal(t, tt.want, mayOpen(&a, tt.uid, tt.gid, tt.flags), fmt.Sprintf("%+v", tt))
	}
}

// TestSecondTries: what is kept for a thread is returned once, to be closed.
func TestSecondTries(t *testing.T) {
	var s secondTries
	now := time.Now()
	require.False(t, s.has(1, now))
	require.Zero(t, s.end(1))
	s.begin(1, now)
	require.True(t, s.has(1, now))
	require.False(t, s.has(2, now))
	require.False(t, s.has(1, now.Add(againTime)))
	require.Zero(t, s.keep(1, 10, now))
	require.EqualValues(t, 10, s.keep(1, 11, now))
	s.begin(1, now)
	require.EqualValues(t, 11, s.end(1))
	require.False(t, s.has(1, now))
	require.Zero(t, s.end(1))
	s.begin(3, now)
	s.begin(4, now)
	s.keep(3, 30, now.Add(time.Second))
	require.Empty(t, s.expire(now))
	require.Empty(t, s.expire(now.Add(againTime)))
	require.Equal(t, []uint64{30}, s.expire(now.Add(time.Second+againTime)))
	require.Empty(t, s.threads)
}
