package systest

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/advise"
	"github.com/zoidfs/zoidfs/internal/consistency"
)

// TestAdvise watches real programs on two mounts whose needs are known: SQLite
// locks what it shares, but for the header, which it reads when it opens a database and may
// meet while another process writes it. HDF5 writes fill values of chunks and the chunks from
// different ranks without a sync between. PnetCDF syncs and opens nothing anew;
// by chance a sieving read may meet a neighbour's write.
func TestAdvise(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c := r.needCluster(t)
	lib := func(name string) *mpiLib {
		for _, l := range mpiLibs() {
			if l.name == name {
				need(t, l.cc, l.pkg)
				need(t, l.launch[0], l.pkg)
				l.binDir = t.TempDir()
				return l
			}
		}
		panic(name)
	}
	for _, tt := range []struct {
		name string
		file string
		run  func(t *testing.T, r *rig)
		want []consistency.Mode
	}{
		{"sqlite", "db", programSqlite, []consistency.Mode{consistency.Commit, consistency.Strong}},
		{"HDF5", "f.h5", func(t *testing.T, r *rig) { mpiHDF5(t, r, lib("mpich"), consistency.Strong) }, []consistency.Mode{consistency.Strong}},
		{"PnetCDF", "f.nc", func(t *testing.T, r *rig) { mpiPnetCDF(t, r, lib("openmpi with romio"), consistency.Strong) }, []consistency.Mode{consistency.Commit, consistency.Strong}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			traces := t.TempDir()
			c.zoidfs(t, "trace", "start", "--dir", c.dir, "-o", traces)
			tt.run(t, r.subdir(t))
			c.zoidfs(t, "trace", "stop", "--dir", c.dir)
			var report advise.Report
			require.NoError(t, json.Unmarshal([]byte(c.zoidfs(t, "advise", "--trace", traces, "--file", tt.file, "--json")), &report))
			require.Len(t, report.Files, 1)
			f := report.Files[0]
			require.Contains(t, tt.want, f.Advice, "%+v", f)
			require.Greater(t, len(f.Writers), 1)
			if tt.name == "sqlite" {
				require.Greater(t, f.Orders[advise.ByLock], 50)
			}
		})
	}
}
