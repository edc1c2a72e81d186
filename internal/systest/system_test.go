package systest

import "testing"

// TestSystem runs on one system of two nodes, two I/O nodes and four servers.
func TestSystem(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a whole system")
	}
	r := newRig(t)
	runTests(t, r)
	if r.cluster != nil {
		r.cluster.noPanics(t)
	}
}

// runTests runs what needs no more than directories that show the same files.
func runTests(t *testing.T, r *rig) {
	for _, tt := range []struct {
		name string
		run  func(*testing.T, *rig)
	}{
		{"Litmus", testLitmus},
		{"Across", testAcross},
		{"Programs", testPrograms},
		{"MPI", testMPI},
		{"Jobs", testJobs},
		{"HintsHonoured", testHintsHonoured},
		{"Hints", testHints},
		{"Calls", testCalls},
		{"Striping", testStriping},
		{"Explain", testExplain},
		{"Sequential", testSequential},
		{"Registers", testRegisters},
		{"Sizes", testSizes},
		{"Appends", testAppends},
		{"Names", testNames},
		{"Replace", testReplace},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.run(t, r) })
	}
}
