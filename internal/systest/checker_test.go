package systest

import (
	"testing"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// at is a call of a client from begin to end.
type at struct {
	client     int
	begin, end int64
	in         any
}

func historyOf(calls []at) (h history) {
	for _, c := range calls {
		h.add(c.client, result{Start: c.begin, End: c.end}, c.in)
	}
	return h
}

// TestCheckersBite feeds the checkers with histories whose verdict is known.
func TestCheckersBite(t *testing.T) {
	w := func(v uint64) registerCall { return registerCall{write: true, value: v} }
	r := func(v uint64) registerCall { return registerCall{value: v} }
	for _, tt := range []struct {
		name  string
		model porcupine.Model // that of the log is made for the history
		ok    bool
		calls []at
	}{
		{"register: read what was written", registerModel, true, []at{{0, 0, 10, w(1)}, {1, 20, 30, r(1)}}},
		{"register: either value while the write runs", registerModel, true, []at{{0, 0, 50, w(1)}, {1, 5, 10, r(0)}, {1, 20, 30, r(1)}}},
		{"register: stale read after the write returned", registerModel, false, []at{{0, 0, 10, w(1)}, {1, 20, 30, r(0)}}},
		{"register: back in time while the write runs", registerModel, false, []at{{0, 0, 50, w(1)}, {1, 5, 10, r(1)}, {1, 20, 30, r(0)}}},
		{"register: two readers see two orders", registerModel, false, []at{
			{0, 0, 100, w(1)}, {1, 0, 100, w(2)}, {2, 10, 20, r(1)}, {2, 30, 40, r(2)}, {3, 10, 20, r(2)}, {3, 30, 40, r(1)}}},
		{"register: value that nobody wrote", registerModel, false, []at{{0, 0, 10, w(1)}, {1, 5, 30, r(7)}}},
		{"size: grows", sizeModel, true, []at{{0, 0, 10, sizeCall{"write", 100}}, {1, 20, 30, sizeCall{"size", 100}}}},
		{"size: a write below the end", sizeModel, true, []at{{0, 0, 1, sizeCall{"write", 100}}, {1, 2, 3, sizeCall{"write", 50}}, {0, 4, 5, sizeCall{"size", 100}}}},
		{"size: old size after the write returned", sizeModel, false, []at{{0, 0, 10, sizeCall{"write", 100}}, {1, 20, 30, sizeCall{"size", 0}}}},
		{"size: truncate is lost", sizeModel, false, []at{{0, 0, 1, sizeCall{"write", 9}}, {1, 2, 3, sizeCall{"truncate", 4}}, {0, 4, 5, sizeCall{"size", 9}}}},
		{"log: records of two in some order", porcupine.Model{}, true, []at{
			{0, 0, 10, logCall{do: "append", records: []int{1}}}, {1, 0, 10, logCall{do: "append", records: []int{2}}}, {2, 20, 30, logCall{do: "read", records: []int{2, 1}}}}},
		{"log: a record is overwritten", porcupine.Model{}, false, []at{
			{0, 0, 10, logCall{do: "append", records: []int{1}}}, {1, 0, 10, logCall{do: "append", records: []int{2}}}, {2, 20, 30, logCall{do: "read", records: []int{2}}}}},
		{"log: against the order of returns", porcupine.Model{}, false, []at{
			{0, 0, 10, logCall{do: "append", records: []int{1}}}, {1, 20, 30, logCall{do: "append", records: []int{2}}}, {2, 40, 50, logCall{do: "read", records: []int{2, 1}}}}},
		{"log: the order of a read stays", porcupine.Model{}, false, []at{
			{0, 0, 10, logCall{do: "append", records: []int{1}}}, {1, 0, 10, logCall{do: "append", records: []int{2}}},
			{2, 20, 30, logCall{do: "read", records: []int{2, 1}}}, {2, 40, 50, logCall{do: "read", records: []int{1, 2}}}}},
		{"log: a record survives the truncate", porcupine.Model{}, false, []at{
			{0, 0, 10, logCall{do: "append", records: []int{1}}}, {1, 20, 30, logCall{do: "truncate"}}, {2, 40, 50, logCall{do: "count", count: 1}}}},
		{"log: a record that nobody wrote", porcupine.Model{}, false, []at{
			{0, 0, 10, logCall{do: "append", records: []int{1}}}, {2, 20, 30, logCall{do: "read", records: []int{1, 9}}}}},
		{"log: size runs behind", porcupine.Model{}, false, []at{{0, 0, 10, logCall{do: "append", records: []int{1}}}, {1, 20, 30, logCall{do: "count", count: 0}}}},
		{"names: one of two exclusive creates", namesModel, true, []at{
			{0, 0, 10, namesCall{do: "excl", ino: 5}}, {1, 0, 10, namesCall{do: "excl", errno: unix.EEXIST}}, {0, 20, 30, namesCall{do: "stat", ino: 5}}}},
		{"names: two exclusive creates succeed", namesModel, false, []at{
			{0, 0, 10, namesCall{do: "excl", ino: 5}}, {1, 0, 10, namesCall{do: "excl", ino: 6}}}},
		{"names: negative entry after the create returned", namesModel, false, []at{
			{0, 0, 10, namesCall{do: "create", ino: 5}}, {1, 20, 30, namesCall{do: "stat", errno: unix.ENOENT}}}},
		{"names: stat between unlink and create", namesModel, true, []at{
			{0, 0, 1, namesCall{do: "create", ino: 5}}, {0, 2, 9, namesCall{do: "unlink"}}, {1, 3, 8, namesCall{do: "stat", errno: unix.ENOENT}}, {0, 10, 11, namesCall{do: "create", ino: 6}}}},
		{"names: a replaced target is missed in between", namesModel, false, []at{
			{0, 0, 1, namesCall{do: "create", ino: 5}}, {0, 2, 3, namesCall{do: "create", name: 1, ino: 6}},
			{0, 4, 20, namesCall{do: "rename", name: 1, to: 0}}, {1, 5, 15, namesCall{do: "stat", errno: unix.ENOENT}}}},
		{"names: both renames of one file succeed", namesModel, false, []at{
			{0, 0, 1, namesCall{do: "create", ino: 5}}, {0, 2, 9, namesCall{do: "rename", name: 0, to: 1}}, {1, 2, 9, namesCall{do: "rename", name: 0, to: 2}}}},
		{"names: one rename twice at the same time", namesModel, true, []at{
			{0, 0, 1, namesCall{do: "create", ino: 5}}, {0, 2, 9, namesCall{do: "rename", name: 0, to: 1}}, {1, 3, 8, namesCall{do: "rename", name: 0, to: 1}}}},
		{"names: one rename twice in a row", namesModel, false, []at{
			{0, 0, 1, namesCall{do: "create", ino: 5}}, {0, 2, 4, namesCall{do: "rename", name: 0, to: 1}}, {1, 5, 8, namesCall{do: "rename", name: 0, to: 1}}}},
		{"names: a rename between the two halves of which an exchange came", namesModel, true, []at{
			{0, 0, 1, namesCall{do: "create", ino: 5}}, {0, 2, 3, namesCall{do: "create", name: 1, ino: 6}},
			{0, 4, 9, namesCall{do: "rename", name: 0, to: 1}}, {1, 5, 8, namesCall{do: "exchange", name: 1, to: 0}},
			{0, 10, 11, namesCall{do: "stat", ino: 6}}, {0, 12, 13, namesCall{do: "stat", name: 1, ino: 5}}}},
		{"names: taken, and its own name unlinked meanwhile", namesModel, true, []at{
			{0, 0, 1, namesCall{do: "create", ino: 5}}, {0, 2, 4, namesCall{do: "unlink"}}, {1, 3, 9, namesCall{do: "noreplace", to: 1, errno: unix.EEXIST}},
			{0, 5, 6, namesCall{do: "create", name: 1, ino: 6}}}},
		{"names: taken, and its own name unlinked before", namesModel, false, []at{
			{0, 0, 1, namesCall{do: "create", ino: 5}}, {0, 2, 4, namesCall{do: "unlink"}}, {1, 5, 9, namesCall{do: "noreplace", to: 1, errno: unix.EEXIST}},
			{0, 5, 6, namesCall{do: "create", name: 1, ino: 6}}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := historyOf(tt.calls)
			if tt.model.Init == nil {
				tt.model = logModel(h)
			} else if _, names := h[0].Input.(namesCall); names {
				h.markRaces()
			}
			require.Equal(t, tt.ok, h.linearizable(tt.model))
		})
	}
}

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
