package systest

import (
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestModelBites checks that the exact model tells a wrong answer from a right
// one for every kind of answer.
func TestModelBites(t *testing.T) {
	m := newModel()
	play := func(o op, got result) string { return m.check(0, o, m.apply(0, o), got) }
	open := op{Do: "open", Path: "a", FD: 1, Flags: unix.O_RDWR | unix.O_CREAT | unix.O_EXCL}
	require.Empty(t, play(open, result{Ino: 7}))
	require.NotEmpty(t, play(open, result{Ino: 7}), "a second O_EXCL succeeds")
	require.Empty(t, play(op{Do: "pwrite", FD: 1, Off: 5, Len: 10, Fill: 1}, result{N: 10}))
	require.NotEmpty(t, play(op{Do: "pwrite", FD: 1, Off: 5, Len: 10, Fill: 1}, result{N: 9}), "short write")
	want := append(make([]byte, 5), fill(1, 10)...)
	read := op{Do: "pread", FD: 1, Len: 100}
	require.Empty(t, play(read, result{N: 15, Data: want}))
	require.Empty(t, play(read, result{N: 15, Sum: digest(want)}))
	require.NotEmpty(t, play(read, result{N: 15, Data: make([]byte, 15)}), "other bytes")
	require.NotEmpty(t, play(read, result{N: 15, Sum: digest(nil)}), "other digest")
	require.NotEmpty(t, play(read, result{N: 14, Data: want[:14]}), "short read")
	fstat := op{Do: "fstat", FD: 1}
	require.Empty(t, play(fstat, result{N: 15, Ino: 7, Nlink: 1, Mode: unix.S_IFREG}))
	require.NotEmpty(t, play(fstat, result{N: 0, Ino: 7, Nlink: 1, Mode: unix.S_IFREG}), "old size")
	require.NotEmpty(t, play(fstat, result{N: 15, Ino: 8, Nlink: 1, Mode: unix.S_IFREG}), "other inode number")
	require.NotEmpty(t, play(op{Do: "readdir"}, result{N: 0}), "a name is missing")
	require.Empty(t, play(op{Do: "rename", Path: "a", To: "b"}, result{}))
	require.NotEmpty(t, play(op{Do: "stat", Path: "a"}, result{N: 15, Ino: 7, Nlink: 1, Mode: unix.S_IFREG}), "the old name is still there")
	require.Empty(t, play(op{Do: "unlink", Path: "b"}, result{}))
	require.NotEmpty(t, play(fstat, result{N: 15, Ino: 7, Nlink: 1, Mode: unix.S_IFREG}), "nlink of an unlinked file")
	require.Empty(t, play(fstat, result{N: 15, Ino: 7, Nlink: 0, Mode: unix.S_IFREG}))
}
