package consistency

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAuto(t *testing.T) {
	for name, why := range map[string]string{
		".my.data.h5.shfp.579515921.26233":  "MPICH 4.0",
		".my.data.h5.shfp.26322.1135587149": "ROMIO in Open MPI 4.1",
		".out.shfp.123":                     "older ROMIO",
		"..hidden.shfp.1":                   "pointer of a hidden file",
		"..a.shfp.1.2.shfp.3.4":             "pointer of a pointer",
		"my.data.h5-175833089-26249.lock":   "OMPIO lockedfile",
		"a-b-1-2.lock":                      "a name with dashes",
		"my.data.h5.locktest.0":             "OMPIO trying locks",
	} {
		m, ok := Auto(name)
		require.True(t, ok, "%s: %s", name, why)
		require.Equal(t, Strong, m, name)
	}
	for name, why := range map[string]string{
		"":                               "nothing",
		"out.h5":                         "a data file",
		"out.shfp.123":                   "not hidden",
		".shfp.123":                      "of no file",
		".out.shfp":                      "without a number",
		".out.shfp.":                     "without a number",
		".out.shfp.12x":                  "not a number",
		".out.shfp.1.2.3":                "three numbers",
		".out.shfp.007":                  "not as C prints numbers",
		"out.lock":                       "a lock file of a program",
		"out-12.lock":                    "one number",
		"-1-2.lock":                      "of no file",
		"out-1-2.lock.old":               "something after it",
		"out-1-x.lock":                   "not a number",
		".locktest.1":                    "of no file",
		"out.locktest":                   "without a rank",
		"out.h5.data.0":                  "one rank's own",
		"out.h5.metadata.1":              "one rank's own",
		".out.shfp.99999999999999999999": "no number of C",
	} {
		m, ok := Auto(name)
		require.False(t, ok, "%s: %s", name, why)
		require.Equal(t, Default, m, name)
	}
}
