package ionserver

import (
	"bytes"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/internal/extent"
	"github.com/zoidfs/zoidfs/internal/hints"
	"github.com/zoidfs/zoidfs/ionserver/ionpb"
	"github.com/zoidfs/zoidfs/pvfs"
	"github.com/zoidfs/zoidfs/pvfs/striping"
)

func (m *mount) setHint(h uint64, hint, value string) error {
	return m.setXattr(h, hints.Xattr(hint), value, 0)
}

func (m *mount) hint(h uint64, hint string) string {
	v, err := m.getXattr(h, hints.Xattr(hint))
	if err != nil {
		require.ErrorIs(m.t, err, syscall.ENODATA)
	}
	return v
}

func (m *mount) removeHint(h uint64, hint string) error {
	return m.atHome(ionpb.Op_REMOVEXATTR, h, &ionpb.NameReq{Name: []byte(hints.Xattr(hint))}, nil)
}

// TestHintsOfRounds: cb_buffer_size is how much of a file goes to or comes from
// the servers at a time, whichever mount has set it, and explain says so.
func TestHintsOfRounds(t *testing.T) {
	const size, domain, servers = 16 << 20, 1 << 20, 4
	requests := func(buffer string) (writes, reads int64, plans map[string]bool) {
		s := startSystem(t, 2, servers, func(i int, o *Options) {
			patient(i, o)
			o.DomainSize = domain
		})
		ms := []*mount{s.mount(t), s.mount(t)}
		if buffer != "" {
			require.NoError(t, ms[0].setHint(ms[0].root, hints.CBBufferSize, buffer))
		}
		h := ms[1].file(ms[1].root, "f")
		data := pattern(domain, 7)
		for _, m := range ms {
			a, err := m.open(h, syscall.O_RDWR)
			require.NoError(t, err)
			require.Equal(t, buffer, map[bool]string{true: fmt.Sprint(a.CbBufferSize)}[a.CbBufferSize > 0])
			m.buffer = uint64(a.CbBufferSize)
		}
		for off := int64(0); off < size; off += int64(len(data)) {
			require.NoError(t, ms[off/domain%2].write(h, off, data, 0))
		}
		require.NoError(t, ms[0].atHome(ionpb.Op_FSYNC, h, &ionpb.FsyncReq{}, nil))
		writes = s.asked("io")
		for _, n := range s.nodes {
			f := n.owner.get(h)
			f.data.Drop(extent.ToEnd(0))
			n.owner.put(f)
		}
		for off := int64(0); off < size; off += int64(len(data)) {
			got, err := ms[0].read(h, off, len(data))
			require.NoError(t, err)
			require.True(t, bytes.Equal(data, got))
		}
		plans = make(map[string]bool)
		for _, n := range s.nodes {
			for _, r := range n.journal.Select(h, 0) {
				if r.Op == "fetch" {
					require.NotEmpty(t, r.Plan, "the choice")
					require.Positive(t, r.Estimate)
				}
				if i := strings.Index(r.Plan, "at most"); i >= 0 {
					r.Plan = r.Plan[i:]
				} else if r.Op == "fetch" {
					r.Plan = ""
				}
				if r.Op != "fsync" {
					plans[r.Op+": "+r.Plan] = true
				}
			}
		}
		return writes, s.asked("io") - writes, plans
	}
	writes, reads, plans := requests("")
	require.Equal(t, map[string]bool{"write back: ": true, "fetch: ": true}, plans)
	small, smallReads, plans := requests(fmt.Sprint(domain))
	const says = "at most 1 MiB at a time, by the hint cb_buffer_size"
	require.Equal(t, map[string]bool{"write back: " + says: true, "fetch: " + says: true}, plans)
	t.Logf("of %d MiB: %d writes and %d reads, with the hint %d and %d", size>>20, writes, reads, small, smallReads)
	require.GreaterOrEqual(t, small, int64(size/domain*servers), "a round for each domain")
	require.LessOrEqual(t, writes, small/2)
	require.Less(t, reads, smallReads)
}

func TestHintsAreInherited(t *testing.T) {
	s := startSystem(t, 2, 2, nil)
	m, other := s.mount(t), s.mount(t)
	d := m.mkdir(m.root, "d")
	require.Empty(t, m.hint(d, hints.CBNodes))
	require.NoError(t, m.setHint(d, hints.CBNodes, "3"))
	require.NoError(t, m.setMode(d, "commit"))
	require.NoError(t, other.setHint(d, hints.CBBufferSize, "8388608"))
	for i := range 8 { // homes of both nodes
		sub := m.mkdir(d, fmt.Sprint("d", i))
		for _, dir := range []uint64{d, sub} {
			h, mode := m.made(dir, fmt.Sprint("f", i))
			require.Equal(t, ionpb.Consistency_COMMIT_MODE, mode, "along with the mode")
			require.Equal(t, "3", other.hint(h, hints.CBNodes))
			require.Equal(t, "8388608", other.hint(h, hints.CBBufferSize))
			a, err := other.open(h, 0)
			require.NoError(t, err)
			require.EqualValues(t, 8<<20, a.CbBufferSize)
			require.NoError(t, other.removeHint(h, hints.CBBufferSize))
			a, err = m.open(h, 0)
			require.NoError(t, err)
			require.Zero(t, a.CbBufferSize)
			require.Equal(t, ionpb.Consistency_COMMIT_MODE, a.Consistency)
			require.ErrorIs(t, other.removeHint(h, hints.CBBufferSize), syscall.ENODATA)
		}
	}
	for _, bad := range []string{"", "0", "-4", "4k", "4 ", "9999999999"} {
		err := m.setHint(d, hints.CBBufferSize, bad)
		require.ErrorIs(t, err, syscall.EINVAL, bad)
		require.ErrorContains(t, err, "want a number from 1 to")
	}
	require.Equal(t, "8388608", m.hint(d, hints.CBBufferSize))
	require.NoError(t, s.nodes[0].client.SetXattr(t.Context(), pvfs.Handle(d), hints.Xattr(hints.CBNodes), []byte("many"), 0))
	s.nodes[m.place.Home(d)].home.chosen.changed(d, nil, s.nodes[0].started)
	h, _ := m.made(d, "last")
	require.Empty(t, m.hint(h, hints.CBNodes), "what makes no sense is not handed on")
}

// TestHintsOfStriping: they are a directory's wish, which files and directories
// made in it fulfil and inherit, and nothing besides it.
func TestHintsOfStriping(t *testing.T) {
	s := startSystem(t, 2, 3, nil)
	m := s.mount(t)
	d := m.mkdir(m.root, "d")
	before := m.file(d, "before")
	require.ErrorIs(t, m.removeHint(d, hints.StripingUnit), syscall.ENODATA)
	require.NoError(t, m.setHint(d, hints.StripingUnit, "8192"))
	require.NoError(t, m.setHint(d, hints.StripingFactor, "2"))
	require.Equal(t, striping.Wish{Dist: "simple_stripe", Params: "strip_size:8192", Servers: 2}, *m.stripe(d).Wish)
	sub := m.mkdir(d, "sub")
	require.Equal(t, "8192", m.hint(sub, hints.StripingUnit))
	require.Equal(t, "2", m.hint(sub, hints.StripingFactor))
	h := m.file(sub, "f")
	require.NoError(t, m.write(h, 0, make([]byte, 30000), 0))
	require.NoError(t, m.atHome(ionpb.Op_FSYNC, h, &ionpb.FsyncReq{}, nil))
	require.Len(t, m.stripe(h).Servers, 2)
	require.EqualValues(t, 8192, m.stripe(h).StripSize)
	require.NotEqual(t, int64(8192), m.stripe(before).StripSize, "a file is striped as it was made")

	for _, x := range []struct {
		h           uint64
		hint, value string
	}{
		{d, hints.StripingFactor, "4"}, {d, hints.StripingFactor, "0"}, {d, hints.StripingUnit, "2147483648"},
		{h, hints.StripingUnit, "4096"}, {h, hints.StripingFactor, "1"},
	} {
		require.ErrorIs(t, m.setHint(x.h, x.hint, x.value), syscall.EINVAL, "%+v", x)
	}
	require.Empty(t, m.hint(h, hints.StripingUnit))
	require.ErrorIs(t, m.removeHint(h, hints.StripingFactor), syscall.ENODATA)
	require.ErrorIs(t, m.setXattr(d, hints.Xattr(hints.StripingFactor), "3", unix.XATTR_CREATE), syscall.EEXIST)
	require.NoError(t, m.removeHint(d, hints.StripingUnit))
	require.ErrorIs(t, m.setXattr(d, hints.Xattr(hints.StripingUnit), "8192", unix.XATTR_REPLACE), syscall.ENODATA)
	require.Equal(t, striping.Wish{Servers: 2}, *m.stripe(d).Wish)
	require.NoError(t, m.removeHint(d, hints.StripingFactor))
	require.Equal(t, striping.Wish{}, *m.stripe(d).Wish)
	require.NoError(t, m.setXattr(d, striping.Xattr, `{"dist": "basic_dist"}`, 0))
	require.ErrorIs(t, m.setHint(d, hints.StripingUnit, "8192"), syscall.EINVAL)
}
