package fs

import (
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/stretchr/testify/require"
)

func TestPackWrite(t *testing.T) {
	for _, tc := range []struct {
		name string
		in   fuse.WriteIn
		want writeFlags
	}{
		{"plain", fuse.WriteIn{}, writeFlags{}},
		{"append", fuse.WriteIn{Flags: syscall.O_APPEND}, writeFlags{atEnd: true}},
		{"O_SYNC", fuse.WriteIn{Flags: syscall.O_SYNC}, writeFlags{sync: true}},
		{"O_DSYNC", fuse.WriteIn{Flags: syscall.O_DSYNC}, writeFlags{sync: true}},
		{"by a user", fuse.WriteIn{WriteFlags: fuse.WRITE_KILL_SUIDGID}, writeFlags{killPriv: true}},
		{"mapped pages stay where they are", fuse.WriteIn{
			Flags: syscall.O_APPEND | syscall.O_SYNC, WriteFlags: fuse.WRITE_CACHE | fuse.WRITE_KILL_SUIDGID,
		}, writeFlags{killPriv: true}},
		{"all", fuse.WriteIn{
			Flags: syscall.O_APPEND | syscall.O_SYNC, WriteFlags: fuse.WRITE_KILL_SUIDGID,
		}, writeFlags{true, true, true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, want := range []int64{0, 1, 4096, maxOffset} {
				tc.in.Offset = uint64(want)
				off, f := unpackWrite(int64(packWrite(&tc.in)))
				require.Equal(t, want, off)
				require.Equal(t, tc.want, f)
			}
		})
	}
}

// recorder is a bridge that notes what reaches it.
type recorder struct {
	fuse.RawFileSystem
	unlocked []fuse.LkIn
	writes   []uint64
	opened   []uint32
}

func (r *recorder) SetLk(_ <-chan struct{}, in *fuse.LkIn) fuse.Status {
	if in.Lk.Typ == syscall.F_UNLCK {
		r.unlocked = append(r.unlocked, *in)
	}
	return fuse.OK
}
func (r *recorder) SetLkw(<-chan struct{}, *fuse.LkIn) fuse.Status   { return fuse.EINTR }
func (r *recorder) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.OK }
func (r *recorder) Release(<-chan struct{}, *fuse.ReleaseIn)         {}
func (r *recorder) Open(_ <-chan struct{}, in *fuse.OpenIn, _ *fuse.OpenOut) fuse.Status {
	r.opened = append(r.opened, in.Flags)
	return fuse.OK
}
func (r *recorder) Write(_ <-chan struct{}, in *fuse.WriteIn, _ []byte) (uint32, fuse.Status) {
	r.writes = append(r.writes, in.Offset)
	return in.Size, fuse.OK
}

func lkIn(node, fh, owner uint64, typ, flags uint32) *fuse.LkIn {
	return &fuse.LkIn{
		InHeader: fuse.InHeader{NodeId: node}, Fh: fh, Owner: owner,
		Lk: fuse.FileLock{Typ: typ}, LkFlags: flags,
	}
}

func TestCloseDropsLocks(t *testing.T) {
	rec := &recorder{}
	raw := &rawFS{RawFileSystem: rec, pages: newPages("", nil, new(openModes))}
	flush := func(node, fh, owner uint64) int {
		rec.unlocked = nil
		raw.Flush(nil, &fuse.FlushIn{InHeader: fuse.InHeader{NodeId: node}, Fh: fh, LockOwner: owner})
		for _, u := range rec.unlocked {
			require.Equal(t, owner, u.Owner)
			require.Equal(t, uint64(0), u.Lk.Start)
			require.Equal(t, uint64(1<<63-1), u.Lk.End)
			require.Zero(t, u.LkFlags)
		}
		return len(rec.unlocked)
	}
	release := func(node, fh uint64, flags uint32, owner uint64) (owners []uint64) {
		rec.unlocked = nil
		raw.Release(nil, &fuse.ReleaseIn{InHeader: fuse.InHeader{NodeId: node}, Fh: fh, ReleaseFlags: flags, LockOwner: owner})
		for _, u := range rec.unlocked {
			owners = append(owners, u.Owner)
		}
		return owners
	}
	require.Zero(t, flush(1, 10, 100), "never locked")
	raw.SetLk(nil, lkIn(1, 10, 100, syscall.F_WRLCK, 0))
	require.Zero(t, flush(1, 11, 101), "another process")
	require.Zero(t, flush(2, 10, 100), "another file")
	require.Equal(t, 1, flush(1, 11, 100), "any descriptor of the file")
	require.Zero(t, flush(1, 10, 100), "once")

	raw.SetLkw(nil, lkIn(1, 10, 100, syscall.F_RDLCK, 0))
	require.Equal(t, 1, flush(1, 10, 100), "an interrupted wait may have been granted")
	raw.SetLk(nil, lkIn(1, 10, 100, syscall.F_UNLCK, 0))
	require.Zero(t, flush(1, 10, 100), "an unlock is no lock")

	raw.SetLk(nil, lkIn(1, 10, 7, syscall.F_WRLCK, 0))
	raw.SetLk(nil, lkIn(1, 11, 8, syscall.F_WRLCK, 0))
	require.Equal(t, []uint64{7}, release(1, 10, 0, 0), "the open file description's own")
	require.Empty(t, release(1, 10, 0, 0))
	raw.SetLk(nil, lkIn(1, 12, 9, syscall.F_WRLCK, fuse.LK_FLOCK))
	require.Zero(t, flush(1, 12, 9), "flock outlives a close")
	require.Equal(t, []uint64{9}, release(1, 12, fuseReleaseFlockUnlock, 9))
	require.Equal(t, uint32(fuse.LK_FLOCK), rec.unlocked[0].LkFlags)
	release(1, 11, 0, 0)
	require.Empty(t, raw.owners.nodes, "nothing is remembered for ever")
}

func TestRawWriteAndOpen(t *testing.T) {
	rec := &recorder{}
	raw := &rawFS{RawFileSystem: rec, pages: newPages("", nil, new(openModes))}
	_, st := raw.Write(nil, &fuse.WriteIn{Offset: maxOffset, Size: 1}, nil)
	require.Equal(t, fuse.Status(syscall.EFBIG), st)
	n, st := raw.Write(nil, &fuse.WriteIn{Offset: 5, Size: 3, Flags: syscall.O_APPEND}, nil)
	require.Equal(t, fuse.OK, st)
	require.EqualValues(t, 3, n)
	require.Equal(t, []uint64{5 | writeAppend}, rec.writes)

	raw.Open(nil, &fuse.OpenIn{Flags: syscall.O_RDWR}, nil)
	raw.Open(nil, &fuse.OpenIn{Flags: syscall.O_TRUNC, Mode: fuse.OPEN_KILL_SUIDGID}, nil)
	require.Equal(t, []uint32{syscall.O_RDWR, syscall.O_TRUNC | openKillPriv}, rec.opened)
}
