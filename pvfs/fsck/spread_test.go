package fsck_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	bolt "go.etcd.io/bbolt"

	"github.com/zoidfs/zoidfs/pvfs"
	"github.com/zoidfs/zoidfs/pvfs/fsck"
	"github.com/zoidfs/zoidfs/pvfs/fsconf"
)

func spread(o *fsconf.GenOptions) {
	o.DistrDirServersInitial, o.DistrDirServersMax, o.DistrDirSplitSize = 2, 3, 10
}

// A directory that is spread over servers and has split is as healthy as any.
func TestSpreadDirectory(t *testing.T) {
	r := newRig(t, spread)
	before := r.check().Entries
	d := r.mkdir(r.c.Root(), "spread")
	for i := range 100 {
		r.symlink(d, fmt.Sprint(i))
	}
	rep := r.check()
	require.Empty(t, lines(rep))
	require.Equal(t, before+101, rep.Entries)
	require.EqualValues(t, 3*rep.Objects["directory"], rep.Objects["dirdata"])
}

// An entry in a bucket that lookups do not look in is as good as lost.
func TestMisfiled(t *testing.T) {
	r := newRig(t, spread)
	d := r.mkdir(r.c.Root(), "spread")
	h := r.symlink(d, "x")
	alias, _ := r.c.Owner(d)
	attrs, _, err := r.c.Inspect(r.ctx, alias, []pvfs.Handle{d})
	require.NoError(t, err)
	right := pvfs.BucketOf(&attrs[0].DistDir, "x")
	wrong := attrs[0].DistDir.Dirdata[0]
	if wrong == right {
		wrong = attrs[0].DistDir.Dirdata[1]
	}
	r.edit(r.owner(wrong), func(tx *bolt.Tx) error {
		seq := binary.BigEndian.AppendUint64(nil, 99)
		name := append(keyOf(wrong), "x"...)
		if err := tx.Bucket([]byte("names")).Put(name, slices.Concat(seq, keyOf(h))); err != nil {
			return err
		}
		return tx.Bucket([]byte("order")).Put(slices.Concat(keyOf(wrong), seq), append(keyOf(h), "x"...))
	})
	rep := r.check()
	require.Equal(t, []string{"misfiled ", "shared symlink", "wrong-count dirdata"}, kinds(rep.Findings), lines(rep))
	i := slices.IndexFunc(rep.Findings, func(f fsck.Finding) bool { return f.Kind == fsck.Misfiled })
	require.Equal(t, "/spread/x", rep.Findings[i].Path)
	require.True(t, bytes.Contains([]byte(rep.Findings[i].Detail), fmt.Append(nil, right)))
}

// A spread directory may lose one of its buckets.
func TestLostBucket(t *testing.T) {
	r := newRig(t, spread)
	d := r.mkdir(r.c.Root(), "spread")
	alias, _ := r.c.Owner(d)
	attrs, _, err := r.c.Inspect(r.ctx, alias, []pvfs.Handle{d})
	require.NoError(t, err)
	lost := attrs[0].DistDir.Dirdata[1]
	r.dropObject(r.owner(lost), lost)
	rep := r.check()
	require.Equal(t, []string{"lost-dirdata dirdata"}, kinds(rep.Findings), lines(rep))
	require.Equal(t, "/spread", rep.Findings[0].Path)
}
