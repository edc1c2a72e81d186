package systest

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/consistency"
)

// grid is what the programs write of one dataset or variable: a number at each
// row and column.
type grid struct {
	name       string
	rows, cols int
	value      func(r, c int) int
}

// mpiHDF5 lets HDF5 of the library write a file, and the serial tools of HDF5
// read it on the other node than that of rank 0.
func mpiHDF5(t *testing.T, r *rig, lib *mpiLib, mode consistency.Mode) {
	if mode == consistency.Commit && !lib.romio {
		t.Skip("HDF5 over OMPIO writes the same bytes twice, on two nodes, without a sync between")
	}
	need(t, lib.hdf5[0], "libhdf5-mpich-dev libhdf5-openmpi-dev")
	need(t, "h5dump", "hdf5-tools")
	const rows, cols = 20, 60
	lib.exec(t, r, lib.build(t, "hdf5", lib.hdf5), "f.h5", fmt.Sprint(rows), fmt.Sprint(cols))
	for i, name := range []string{"contiguous", "chunked", "group/growing"} {
		g := grid{name, rows * mpiRanks, cols, func(r, c int) int { return 1 + r*1000003 + c*101 + i*7 }}
		if name == "group/growing" {
			g.rows *= 3
		}
		out := filepath.Join(t.TempDir(), "numbers")
		command{dir: r.dirs[1]}.run(t, "h5dump", "-d", name, "-b", "LE", "-o", out, "f.h5")
		got, err := os.ReadFile(out)
		require.NoError(t, err)
		require.Equal(t, 4*g.rows*g.cols, len(got), name)
		for j := range g.rows * g.cols {
			require.EqualValues(t, g.value(j/cols, j%cols), binary.LittleEndian.Uint32(got[4*j:]), "%s, row %d, column %d", name, j/cols, j%cols)
		}
	}
	all := command{dir: r.dirs[1]}.run(t, "h5dump", "-A", "f.h5")
	for name, value := range map[string]int{"before": 17, "between": 18, "first step": 101, "second step": 102} {
		require.Regexp(t, fmt.Sprintf(`ATTRIBUTE %q \{[^}]*\{\s*\(0\): %d\s`, name, value), all)
	}
}

// mpiPnetCDF lets PnetCDF write a file, and its dumper read it on the other
// node than that of rank 0.
func mpiPnetCDF(t *testing.T, r *rig, lib *mpiLib, _ consistency.Mode) {
	if !lib.pnetcdf {
		t.Skip("Debian's PnetCDF is built with Open MPI")
	}
	if _, err := os.Stat("/usr/include/pnetcdf.h"); err != nil {
		skipOrFail(t, "pnetcdf.h is missing: apt-get install libpnetcdf-dev")
	}
	need(t, "ncmpidump", "pnetcdf-bin")
	const rows, cols, records = 20, 60, 5
	bin := lib.build(t, "pnetcdf", []string{lib.cc}, "-lpnetcdf")
	lib.exec(t, r, bin, "f.nc", fmt.Sprint(rows), fmt.Sprint(cols), fmt.Sprint(records))
	env := []string{"OMPI_ALLOW_RUN_AS_ROOT=1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1"}
	dump, err := command{dir: r.dirs[1], env: env}.try("ncmpidump", "f.nc")
	require.NoError(t, err, dump)
	require.Contains(t, dump, "fixed:wide = 4711 ;")
	require.Contains(t, dump, `:title = "first" ;`)
	require.Contains(t, dump, strings.Repeat("x", 500))
	for i, name := range []string{"fixed", "record", "late"} {
		_, list, ok := strings.Cut(dump, "\n "+name+" =")
		require.True(t, ok, "%s in %s", name, dump[:min(len(dump), 2000)])
		list, _, _ = strings.Cut(list, ";")
		got := strings.FieldsFunc(list, func(c rune) bool { return c == ',' || c == ' ' || c == '\n' })
		g := grid{name, rows * mpiRanks, cols, func(r, c int) int { return 1 + r*1009 + c*101 + i*7 }}
		if name == "record" {
			g.rows = 2 * records
		}
		require.Equal(t, g.rows*g.cols, len(got), name)
		for j, s := range got {
			require.Equal(t, fmt.Sprint(g.value(j/cols, j%cols)), s, "%s, row %d, column %d", name, j/cols, j%cols)
		}
	}
}
