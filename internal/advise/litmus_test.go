package advise

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/trace"
)

// TestLitmus has the litmus tests whose outcome a mode decides (docs/litmus.md):
// need is the weakest mode that is in their row of what must be seen.
func TestLitmus(t *testing.T) {
	for _, tt := range []struct {
		name string
		need Need
		here Need // by what zoidfs promises
		play func(s *play, P, Q, R *actor)
	}{
		{"L1 write, read", NeedStrong, NeedStrong, func(s *play, P, Q, R *actor) {
			P.wronly("x")
			Q.rdonly("x")
			P.write("x", 0, 10)
			Q.read("x", 0, 10)
		}},
		{"L1 read by a file open for writing too", NeedStrong, NeedSession, func(s *play, P, Q, R *actor) {
			P.wronly("x")
			Q.rdwr("x")
			P.write("x", 0, 10)
			Q.read("x", 0, 10)
		}},
		{"L2 write, fsync, read", NeedCommit, NeedCommit, func(s *play, P, Q, R *actor) {
			P.wronly("x")
			Q.rdonly("x")
			P.write("x", 0, 10).fsync("x")
			Q.read("x", 0, 10)
		}},
		{"L2s write by O_SYNC", NeedCommit, NeedCommit, func(s *play, P, Q, R *actor) {
			P.wronly("x")
			Q.rdonly("x")
			P.call(trace.Write, "x", trace.Call{Off: 0, Len: 10, N: 10, Arg: trace.WriteSync})
			Q.read("x", 0, 10)
		}},
		{"L3 write, close, open, read", NeedSession, NeedSession, func(s *play, P, Q, R *actor) {
			P.wronly("x").write("x", 0, 10).close("x")
			Q.rdonly("x").read("x", 0, 10)
		}},
		{"L4 write, close, read by the old file", NeedCommit, NeedCommit, func(s *play, P, Q, R *actor) {
			P.wronly("x")
			Q.rdonly("x")
			P.write("x", 0, 10).close("x")
			Q.read("x", 0, 10)
		}},
		{"L5 fsync on both sides", NeedCommit, NeedCommit, func(s *play, P, Q, R *actor) {
			P.wronly("x")
			Q.rdonly("x")
			P.write("x", 0, 10).fsync("x")
			Q.fsync("x").read("x", 0, 10)
		}},
		{"L6 write, open, read", NeedStrong, NeedStrong, func(s *play, P, Q, R *actor) {
			P.wronly("x").write("x", 0, 10)
			Q.rdonly("x").read("x", 0, 10)
		}},
		{"L9 neighbours", NeedSession, NeedSession, func(s *play, P, Q, R *actor) {
			P.wronly("x")
			Q.wronly("x")
			for i := range int64(4) {
				P.write("x", 20*i, 10)
				Q.write("x", 20*i+10, 10)
			}
			P.fsync("x")
			Q.fsync("x")
			R.rdonly("x").read("x", 0, 100)
		}},
		{"L10 ordered overwrites", NeedCommit, NeedSession, func(s *play, P, Q, R *actor) {
			P.wronly("x")
			Q.wronly("x")
			P.write("x", 0, 10).fsync("x")
			Q.write("x", 0, 10).fsync("x")
			R.rdonly("x").read("x", 0, 10)
		}},
		{"L11 overwrites at once", NeedMore, NeedMore, func(s *play, P, Q, R *actor) {
			P.wronly("x")
			Q.wronly("x")
			s.atOnce(func() { P.write("x", 0, 10) }, func() { Q.write("x", 5, 10) })
		}},
		{"L12 a counter under a lock", NeedSession, NeedSession, func(s *play, P, Q, R *actor) {
			for _, a := range []*actor{P, Q, R} {
				a.rdwr("x")
			}
			for range 3 {
				for _, a := range []*actor{P, Q, R} {
					a.lock("x", 0, 8).read("x", 0, 8).write("x", 0, 8).unlock("x", 0, 8)
				}
			}
		}},
		{"L12a a lock of other bytes", NeedStrong, NeedStrong, func(s *play, P, Q, R *actor) {
			P.wronly("x")
			Q.rdonly("x")
			P.lock("x", 100, 1).write("x", 0, 8).unlock("x", 100, 1)
			Q.lock("x", 100, 1).read("x", 0, 8).unlock("x", 100, 1)
		}},
		{"L14 truncation", NeedSession, NeedSession, func(s *play, P, Q, R *actor) {
			P.wronly("x")
			Q.rdonly("x")
			P.truncate("x", 0)
			Q.read("x", 0, 10)
		}},
		{"L15 append", NeedSession, NeedSession, func(s *play, P, Q, R *actor) {
			P.wronly("x").append("x", 0, 10)
			Q.wronly("x").append("x", 10, 10)
			R.rdonly("x").read("x", 0, 20)
		}},
		{"L18 close of a copy", NeedSession, NeedSession, func(s *play, P, Q, R *actor) {
			P.wronly("x").write("x", 0, 10).call(trace.Flush, "x", trace.Call{})
			Q.rdonly("x").read("x", 0, 10)
		}},
		{"L21 renamed into place", NeedSession, NeedSession, func(s *play, P, Q, R *actor) {
			P.wronly("tmp").write("tmp", 0, 10).rename("tmp", "x")
			Q.rdonly("x").read("x", 0, 10)
		}},
		{"nothing shared", NeedNothing, NeedNothing, func(s *play, P, Q, R *actor) {
			P.wronly("x").write("x", 0, 10)
			Q.wronly("x").write("x", 10, 10)
		}},
		{"read, then written", NeedNothing, NeedNothing, func(s *play, P, Q, R *actor) {
			P.rdonly("x").read("x", 0, 10)
			Q.wronly("x").write("x", 0, 10)
		}},
		{"read while written", NeedMore, NeedMore, func(s *play, P, Q, R *actor) {
			P.rdonly("x")
			Q.wronly("x")
			s.atOnce(func() { P.read("x", 0, 10) }, func() { Q.write("x", 0, 10) })
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newPlay()
			tt.play(s, s.rank(), s.rank(), s.rank())
			f := s.file("x", Options{})
			require.Equal(t, tt.need, f.Model.Need, "%+v", f.Breaks)
			require.Equal(t, tt.here, f.Zoidfs.Need)
		})
	}
}
