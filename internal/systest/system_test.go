package systest

import "testing"

func TestMPI(t *testing.T)    { onSystem(t, testMPI) }
func TestLitmus(t *testing.T) { onSystem(t, testLitmus) }
func TestSystem(t *testing.T) { onSystem(t, testParts) }

// onSystem runs tests on a system of their own of two nodes, two I/O nodes and four
// servers, beside other tests.
func onSystem(t *testing.T, run func(*testing.T, *rig)) {
	if testing.Short() {
		t.Skip("starts a whole system")
	}
	t.Parallel()
	r := newRig(t)
	run(t, r)
	if r.cluster != nil {
		r.cluster.noPanics(t)
	}
}

// runTests runs what needs no more than directories that show the same files.
func runTests(t *testing.T, r *rig) {
	t.Run("MPI", func(t *testing.T) { testMPI(t, r) })
	t.Run("Litmus", func(t *testing.T) { testLitmus(t, r) })
	testParts(t, r)
}

// testParts runs what takes less time than those before, in order.
func testParts(t *testing.T, r *rig) {
	for _, tt := range []struct {
		name string
		run  func(*testing.T, *rig)
	}{
		{"Across", testAcross},
		{"Programs", testPrograms},
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
