package systest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// mpiLib is an MPI library with its compiler and launcher.
type mpiLib struct {
	name, pkg, cc string
	launch        []string
	env           []string
	noAtomic      bool // MPI_File_set_atomicity is accepted and ignored
	binDir        string
}

const mpiRanks = 4 // two on each node

// testMPI runs MPI programs with four ranks on two nodes. Each rank has the
// mount of its node at /zfs.
func testMPI(t *testing.T, r *rig) {
	needRoot(t, "mount namespaces")
	openmpi := mpiLib{
		pkg: "openmpi-bin libopenmpi-dev", cc: "mpicc.openmpi",
		launch: []string{"mpirun.openmpi", "--allow-run-as-root", "--oversubscribe", "-n", "4", "--mca", "btl", "self,vader,tcp"},
		env:    []string{"OMPI_MCA_rmaps_base_oversubscribe=1", "OMPI_MCA_mpi_yield_when_idle=1"},
	}
	ompio, romio := openmpi, openmpi
	ompio.name, ompio.noAtomic = "openmpi", true
	romio.name, romio.launch = "openmpi with romio", slices.Concat(openmpi.launch, []string{"--mca", "io", "romio321"})
	for _, lib := range []*mpiLib{
		{name: "mpich", pkg: "mpich libmpich-dev", cc: "mpicc.mpich", launch: []string{"mpirun.mpich", "-n", "4"}},
		&ompio, &romio,
	} {
		t.Run(lib.name, func(t *testing.T) {
			need(t, lib.cc, lib.pkg)
			need(t, lib.launch[0], lib.pkg)
			lib.binDir = t.TempDir()
			r := r.subdir(t)
			for _, tt := range []struct {
				name string
				run  func(*testing.T, *rig, *mpiLib)
			}{
				{"collective", mpiCollective},
				{"strided", mpiStrided},
				{"shared pointer", mpiShared},
				{"atomic", mpiAtomic},
			} {
				if lib.noAtomic && tt.name == "atomic" {
					continue
				}
				t.Run(tt.name, func(t *testing.T) { tt.run(t, r.subdir(t), lib) })
			}
		})
	}
}

// run compiles a program of testdata and runs it on a file of the rig, which
// it returns as seen by the other node than that of rank 0.
func (lib *mpiLib) run(t *testing.T, r *rig, program, file string, args ...string) []byte {
	t.Helper()
	bin := filepath.Join(lib.binDir, program)
	if _, err := os.Stat(bin); err != nil {
		command{}.run(t, lib.cc, "-O1", "-Wall", "-o", bin, filepath.Join("testdata", program+".c"))
	}
	mount := r.dirs[0] // the directory that a node has at /zfs
	inMount := file
	if r.cluster != nil {
		top := r.cluster.rig().dirs[0]
		rel, err := filepath.Rel(top, filepath.Join(mount, file))
		require.NoError(t, err)
		inMount = rel
	}
	wrapper := filepath.Join(lib.binDir, "wrapper-"+program)
	script := "#!/bin/sh\nr=${PMI_RANK:-$OMPI_COMM_WORLD_RANK}\ncase $((r/2)) in\n"
	for node := range r.dirs {
		argv := r.enter(node, bin)
		script += fmt.Sprintf("%d) exec", node)
		for _, a := range argv {
			script += fmt.Sprintf(" '%s'", a)
		}
		script += " \"$@\" ;;\n"
	}
	require.NoError(t, os.WriteFile(wrapper, []byte(script+"esac\n"), 0o755))
	argv := slices.Concat(lib.launch, []string{wrapper, "/zfs/" + inMount}, args)
	out, err := command{dir: "/", env: lib.env, timeout: 2 * time.Minute}.try(argv...)
	require.NoErrorf(t, err, "%s %s: %s", lib.name, program, out)
	got, err := os.ReadFile(filepath.Join(r.dirs[1], file))
	require.NoError(t, err)
	return got
}

// requireSame is require.Equal for files.
func requireSame(t *testing.T, want, got []byte) {
	t.Helper()
	require.Equal(t, len(want), len(got), "size")
	for i := range want {
		if want[i] != got[i] {
			require.Failf(t, "other bytes", "from %d on: %d, want %d", i, got[i], want[i])
		}
	}
}

func mpiCollective(t *testing.T, r *rig, lib *mpiLib) {
	for _, c := range []struct{ rounds, block int }{{24, 4096}, {10, 47008}, {2, 1<<20 + 1}} {
		got := lib.run(t, r, "collective", fmt.Sprint("f", c.block), fmt.Sprint(c.rounds), fmt.Sprint(c.block))
		var want []byte
		for i := range c.rounds {
			for k := range mpiRanks {
				want = append(want, bytes.Repeat([]byte{byte(1 + (i*7+k*31)%255)}, c.block)...)
			}
		}
		requireSame(t, want, got)
	}
}

func mpiStrided(t *testing.T, r *rig, lib *mpiLib) {
	for _, c := range []struct {
		mode         string
		count, block int
	}{{"independent", 60, 1000}, {"collective", 200, 4096}, {"both", 40, 777}} {
		// The file is there already; its holes must keep their bytes.
		want := bytes.Repeat([]byte{0xee}, (c.count*(mpiRanks+1)+3)*c.block)
		require.NoError(t, os.WriteFile(filepath.Join(r.dirs[1], c.mode), want, 0o644))
		got := lib.run(t, r, "strided", c.mode, fmt.Sprint(c.count), fmt.Sprint(c.block), c.mode)
		for b := range c.count {
			for k := range mpiRanks {
				off := (b*(mpiRanks+1) + k) * c.block
				copy(want[off:], bytes.Repeat([]byte{byte(1 + (b*5+k*17)%255)}, c.block))
			}
		}
		requireSame(t, want, got)
	}
}

func mpiShared(t *testing.T, r *rig, lib *mpiLib) {
	const records, length = 12, 1234
	got := lib.run(t, r, "shared", "f", fmt.Sprint(records), fmt.Sprint(length))
	require.Len(t, got, (records+1)*mpiRanks*length)
	seen := map[byte]bool{}
	for i := range (records + 1) * mpiRanks {
		rec := got[i*length:][:length]
		requireSame(t, bytes.Repeat(rec[:1], length), rec)
		require.False(t, seen[rec[0]], "record %d twice", rec[0])
		seen[rec[0]] = true
		if k := i - records*mpiRanks; k >= 0 {
			require.EqualValues(t, 200+k, rec[0], "ordered records come last, by rank")
		} else {
			require.True(t, rec[0] >= 1 && int(rec[0]) <= records*mpiRanks, "record %d", rec[0])
		}
	}
}

func mpiAtomic(t *testing.T, r *rig, lib *mpiLib) {
	const length = 300_000 // over two stripes
	got := lib.run(t, r, "atomic", "f", "15", fmt.Sprint(length))
	require.Len(t, got, length+4)
	requireSame(t, bytes.Repeat(got[:1], length), got[:length])
	require.EqualValues(t, 2*mpiRanks, binary.LittleEndian.Uint32(got[length:]))
}
