package systest

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/consistency"
)

// TestNamesOfMPILibraries looks which files the MPI libraries of this machine
// make to share a file pointer: a mount has to know every one by its name. It
// needs no mount for that.
func TestNamesOfMPILibraries(t *testing.T) {
	t.Parallel()
	openmpi := []string{"mpirun.openmpi", "--allow-run-as-root", "--oversubscribe", "-n", "2"}
	for _, lib := range []struct {
		name, cc string
		launch   []string
	}{
		{"mpich", "mpicc.mpich", []string{"mpirun.mpich", "-n", "2"}},
		{"openmpi", "mpicc.openmpi", slices.Concat(openmpi, []string{"--mca", "io", "ompio", "--mca", "sharedfp", "lockedfile"})},
		{"openmpi with romio", "mpicc.openmpi", slices.Concat(openmpi, []string{"--mca", "io", "romio321"})},
	} {
		t.Run(lib.name, func(t *testing.T) {
			need(t, lib.cc, "mpich libmpich-dev openmpi-bin libopenmpi-dev")
			need(t, lib.launch[0], "mpich openmpi-bin")
			bin := filepath.Join(t.TempDir(), "names")
			command{}.run(t, lib.cc, "-O1", "-Wall", "-o", bin, "testdata/names.c")
			argv := slices.Concat(lib.launch, []string{bin, filepath.Join(t.TempDir(), "data-1.h5")})
			out, err := command{dir: "/", timeout: time.Minute}.try(argv...)
			require.NoError(t, err, "%s", out)
			var strong []string
			for line := range strings.Lines(string(out)) {
				name, ok := strings.CutPrefix(strings.TrimSpace(line), "name ")
				if !ok || name == "." || name == ".." || name == "data-1.h5" {
					continue
				}
				mode, known := consistency.Auto(name)
				require.True(t, known, "what is %s?", name)
				require.Equal(t, consistency.Strong, mode)
				strong = append(strong, name)
			}
			require.NotEmpty(t, strong, "where is its shared file pointer? %s", out)
		})
	}
}
