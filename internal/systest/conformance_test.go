package systest

import (
	"bytes"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/consistency"
	"github.com/zoidfs/zoidfs/internal/history"
	"github.com/zoidfs/zoidfs/internal/litmus"
)

// litmusEnv is set in worker processes of litmus tests to the directory they
// work on.
const litmusEnv = "ZOIDFS_SYSTEST_LITMUS"

func litmusOptions(t *testing.T, mounts []string) litmus.Options {
	return litmus.Options{
		Mounts: mounts, Seed: seed(t),
		Start: func(dir string) *exec.Cmd {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), litmusEnv+"="+dir)
			return cmd
		},
	}
}

// violated are the names of the tests that found a broken promise.
func violated(res litmus.Result) (out []string) {
	for _, r := range res.Tests {
		if r.Violated > 0 {
			out = append(out, r.Name)
		}
	}
	return out
}

// weakTests are those that a weakFS can be put to: it has no mappings and seals
// nothing.
var weakTests = []string{
	"L1", "L1d", "L1n", "L1h", "L2", "L2s", "L3", "L4", "L5", "L6", "L7", "L8", "L9", "L9a", "L9b", "L9c", "L10", "L11", "L12", "L12a",
	"L12s", "L13", "L14", "L14r", "L15", "L18", "L19", "L20", "L20f", "L20o", "L21", "L22",
}

// TestLitmusBites runs the litmus tests and random programs over file systems
// whose weaknesses are known: they must find those, and find nothing in a file
// system that is weak in lawful ways.
func TestLitmusBites(t *testing.T) {
	t.Parallel()
	commit := weakness{writeBehind: true}
	session := weakness{writeBehind: true, snapshot: true}
	with := func(w weakness, change func(*weakness)) weakness {
		change(&w)
		return w
	}
	for _, tt := range []struct {
		name string
		weak weakness
		mode history.Mode
		bad  []string // tests that must find it, always, random those of either kind; none: nothing may be found
	}{
		{"strong is strong", weakness{}, history.Strong, nil},
		{"commit is commit", commit, history.Commit, nil},
		{"commit is session", commit, history.Session, nil},
		{"commit is not strong", commit, history.Strong, []string{"L1", "L6", "L20", "racy"}},
		{"session is session", session, history.Session, nil},
		{"session is not commit", session, history.Commit, []string{"L2", "L4", "L5", "random"}},
		{"session shows nothing by itself", session, history.Eventual, []string{"L1d"}},
		{"publishes at the last close", with(session, func(w *weakness) { w.atRelease = true }), history.Session, []string{"L18", "L19"}},
		{"publishes whole pages", with(session, func(w *weakness) { w.wholePages, w.noRecall = true, true }), history.Session, []string{"L9"}},
		{"does not recall", with(commit, func(w *weakness) { w.noRecall = true }), history.Commit, []string{"L9a", "L9b"}},
		{"its locks exclude nobody", with(weakness{}, func(w *weakness) { w.ownLocks = true }), history.Strong, []string{"L12"}},
		{"sizes do not shrink", with(weakness{}, func(w *weakness) { w.staleSize = true }), history.Strong, []string{"L14"}},
		{"loses writes", with(weakness{}, func(w *weakness) { w.losesWrites = 7 }), history.Strong, []string{"L1", "L9", "random"}},
		{"publishes again", with(commit, func(w *weakness) { w.twoTimes = true }), history.Commit, []string{"random"}},
		{"appends overlap", with(commit, func(w *weakness) { w.appendsAtEnd = true }), history.Commit, []string{"L15"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel() // their programs wait most of the time
			o := litmusOptions(t, mountWeak(t, tt.weak))
			o.Expect, o.Visibility = tt.mode, 50*time.Millisecond
			if len(tt.bad) > 0 {
				bites(t, o, tt.bad)
				return
			}
			o.Rounds, o.Random, o.Tests = 3, 15, weakTests
			res, err := litmus.Run(t.Context(), o)
			require.NoError(t, err)
			require.Empty(t, violated(res), table(t, res))
		})
	}
}

// bites requires that the tests of these names find something. A weakness shows
// in some rounds only, by their places and by what comes first: in one of twenty
// or more. So they are run again, with other choices, and what was not found in
// maxRuns is not there to be found.
func bites(t *testing.T, o litmus.Options, bad []string) {
	const maxRuns = 20
	for run := 1; len(bad) > 0; run++ {
		o.Rounds, o.Random, o.Tests = 10, 0, slices.DeleteFunc(slices.Clone(bad), isRandom)
		if slices.ContainsFunc(bad, isRandom) {
			o.Random, o.Tests = 15, append(o.Tests, "random")
		}
		res, err := litmus.Run(t.Context(), o)
		require.NoError(t, err)
		found := slices.DeleteFunc(violated(res), isRandom)
		if at := slices.IndexFunc(res.Tests, func(r litmus.Row) bool { return isRandom(r.Name) && r.Violated > 0 }); at >= 0 {
			first := res.Tests[at].Findings[0]
			require.True(t, first.Shrunk)
			t.Log(first)
			if len(first.Events) < 80 { // there is little time to shrink a program that fails seldom
				found = append(found, "random", "racy")
			}
		}
		bad = slices.DeleteFunc(slices.Clone(bad), func(name string) bool { return slices.Contains(found, name) })
		if len(bad) > 0 {
			require.Less(t, run, maxRuns, "%v found nothing, or nothing small: %s", bad, table(t, res))
		}
		o.Seed++
	}
}

// table is the conformance table of a run.
func table(t *testing.T, res litmus.Result) string {
	t.Helper()
	var out bytes.Buffer
	require.NoError(t, res.Table(&out))
	return out.String()
}

// isRandom reports whether a test is one of random programs.
func isRandom(name string) bool { return name == "random" || name == "racy" }

// litmusModes are the modes that zoidfs is held to here.
var litmusModes = consistency.All()

// testLitmus runs the litmus tests and random programs on the directories. A
// call of `strong` takes effect at once within a stripe of zoidfs.
func testLitmus(t *testing.T, r *rig) {
	r = r.subdir(t)
	for _, mode := range litmusModes {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel() // their programs wait most of the time
			o := litmusOptions(t, r.dirs)
			o.Rounds, o.Random = 8, 40
			if mode == consistency.Eventual { // which waits, again and again
				o.Rounds, o.Random, o.Visibility = 2, 4, visibility
			}
			if mode != history.Strong { // which is that of a new directory
				o.Mode = mode
			}
			if r.cluster != nil {
				o.Atomic = stripe
			}
			res, err := litmus.Run(t.Context(), o)
			require.NoError(t, err)
			require.True(t, res.Conforms(), table(t, res))
			t.Log(table(t, res))
		})
	}
}
