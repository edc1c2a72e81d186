package advise

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/zoidfs/zoidfs/internal/consistency"
)

// Patterns of access as programs of high-performance computing have them.

// ownFiles has each rank write a file of its own, and some read and overwrite
// what they wrote, in several passes if they keep scratch files.
func ownFiles(passes int) func(*play, []*actor) {
	return func(s *play, ranks []*actor) {
		for _, r := range ranks {
			name := fmt.Sprint("f", r.rank)
			r.rdwr(name)
			for range passes {
				r.write(name, 0, 100).write(name, 100, 100).read(name, 50, 100).write(name, 0, 8)
			}
			r.close(name)
		}
	}
}

// rootWrites has rank 0 write for all, what all have read the input for.
func rootWrites(s *play, ranks []*actor) {
	for _, r := range ranks {
		r.rdonly("in").read("in", 0, 1000).close("in")
	}
	for step := range 2 {
		name := fmt.Sprint("f", step)
		ranks[0].wronly(name).write(name, 0, 100).write(name, 100, 900).write(name, 0, 16).fsync(name).close(name)
	}
}

// oneFile has all ranks write their parts of one file, which rank 0 has made,
// and read it later; strided if pieces of all are interleaved.
func oneFile(strided bool) func(*play, []*actor) {
	return func(s *play, ranks []*actor) {
		ranks[0].wronly("f").close("f")
		for _, r := range ranks {
			r.rdwr("f")
		}
		n := int64(len(ranks))
		for i := range int64(4) {
			for _, r := range ranks {
				off := int64(r.rank)*400 + i*100
				if strided {
					off = (i*n + int64(r.rank)) * 100
				}
				r.write("f", 64+off, 100)
			}
		}
		ranks[0].write("f", 0, 64)
		for _, r := range ranks {
			r.close("f")
		}
		for _, r := range ranks {
			r.rdonly("f").read("f", 0, 64).read("f", 64+int64(r.rank)*100, 100).close("f")
		}
	}
}

// baton has groups of ranks pass a file from one to the next, as Silo does.
func baton(s *play, ranks []*actor) {
	for i, r := range ranks {
		name := fmt.Sprint("f", i/2)
		r.rdwr(name).read(name, 0, 32).write(name, 32+int64(i%2)*100, 100).write(name, 0, 32).close(name)
	}
}

// aggregators has some ranks write a file each, and rank 0 an index that it
// overwrites in place, as ADIOS2 does.
func aggregators(s *play, ranks []*actor) {
	ranks[0].wronly("f")
	for step := range int64(3) {
		for _, r := range ranks[:2] {
			name := fmt.Sprint("data.", r.rank)
			r.wronly(name).write(name, step*100, 100).close(name)
		}
		ranks[0].write("f", 64+step*64, 64).write("f", 36, 1)
	}
	ranks[0].close("f")
}

// flash has ranks write data of their own into one HDF5 file, and metadata at its
// beginning now by one rank, now by another, with H5Fflush in between.
func flash(s *play, ranks []*actor) {
	for _, r := range ranks {
		r.rdwr("f")
	}
	for step := range int64(3) {
		for _, r := range ranks {
			r.write("f", 4096+(step*int64(len(ranks))+int64(r.rank))*100, 100)
		}
		owner := ranks[step%int64(len(ranks))]
		owner.write("f", 0, 96).write("f", 800, 544)
		for _, r := range ranks {
			r.fsync("f")
		}
	}
	for _, r := range ranks {
		r.close("f")
	}
}

// TestApplications has the 17 applications of the study of Wang, Mohror and Snir
// (HPDC 2021) do in small what it reports of them: 16 ran with session semantics,
// FLASH needs commit.
func TestApplications(t *testing.T) {
	for app, tt := range map[string]struct {
		play func(*play, []*actor)
		want consistency.Mode
	}{
		"FLASH":    {flash, consistency.Commit},
		"ENZO":     {ownFiles(1), consistency.Session},
		"NWChem":   {ownFiles(3), consistency.Session},
		"GAMESS":   {ownFiles(3), consistency.Session},
		"pF3D-IO":  {ownFiles(1), consistency.Session},
		"HACC-IO":  {oneFile(false), consistency.Session},
		"VPIC-IO":  {oneFile(true), consistency.Session},
		"Chombo":   {oneFile(false), consistency.Session},
		"ParaDiS":  {oneFile(true), consistency.Session},
		"MILC-QCD": {oneFile(false), consistency.Session},
		"QMCPACK":  {rootWrites, consistency.Session},
		"VASP":     {rootWrites, consistency.Session},
		"GTC":      {rootWrites, consistency.Session},
		"Nek5000":  {rootWrites, consistency.Session},
		"LBANN":    {rootWrites, consistency.Session},
		"LAMMPS":   {aggregators, consistency.Session},
		"MACSio":   {baton, consistency.Session},
	} {
		t.Run(app, func(t *testing.T) {
			s := newPlay()
			tt.play(s, s.ranks(4))
			worst := consistency.Session
			for _, f := range s.report(Options{}).Files {
				require.NotEmpty(t, f.Why)
				worst = min(worst, f.Advice)
			}
			require.Equal(t, tt.want, worst)
		})
	}
}

// TestFlashSaysWhy looks at the evidence.
func TestFlashSaysWhy(t *testing.T) {
	s := newPlay()
	flash(s, s.ranks(4))
	f := s.file("f", Options{})
	require.Equal(t, consistency.Commit, f.Model.Mode)
	require.Equal(t, consistency.Session, f.Zoidfs.Mode, "overwriting only asks for what was written before to be published")
	require.NotEmpty(t, f.Hint)
	require.Equal(t, []string{"rank 0", "rank 1", "rank 2", "rank 3"}, f.Writers)
	c := f.Breaks[0]
	require.Equal(t, "write after write", c.Kind)
	require.Equal(t, "rank 0", c.First.Who)
	require.Equal(t, "rank 1", c.Second.Who)
	require.Equal(t, []int64{0, 96}, []int64{c.Off, c.Len})
	require.Equal(t, "rank 1 did not open the file (or lock these bytes) after rank 0 had synchronised", c.Missing)
	require.Equal(t, ByTime, c.Order)
	require.Equal(t, 2, c.Pairs)
}

// sqlite is a transaction of each rank as SQLite makes it with a rollback
// journal: locks far behind the data, fsync before they are given up.
func sqlite(s *play, ranks []*actor) {
	const pending, reserved, sharedAt = 1 << 30, 1<<30 + 1, 1<<30 + 2
	for _, r := range ranks {
		r.rdwr("db")
	}
	for range 2 {
		for _, r := range ranks {
			r.shared("db", pending, 1).shared("db", sharedAt, 510).unlock("db", pending, 1)
			r.read("db", 24, 16).read("db", 0, 4096)
			r.lock("db", reserved, 1).lock("db", pending, 1).lock("db", sharedAt, 510)
			r.write("db", 0, 4096).fsync("db")
			r.shared("db", sharedAt, 510).unlock("db", pending, 2).unlock("db", pending, 512)
		}
	}
}

func TestPrograms(t *testing.T) {
	for name, tt := range map[string]struct {
		play func(*play, []*actor)
		file string
		want consistency.Mode
		why  string
	}{
		"SQLite": {sqlite, "db", consistency.Strong, "all that is shared is locked"},
		"input": {func(s *play, ranks []*actor) {
			for _, r := range ranks {
				r.rdonly("in").read("in", 0, 10)
			}
		}, "in", consistency.Session, "only read"},
		"shared file pointer": {func(s *play, ranks []*actor) {
			for _, r := range ranks {
				r.rdwr(".f.shfp.123").write(".f.shfp.123", 0, 8)
			}
		}, ".f.shfp.123", consistency.Strong, "whatever is set"},
		"PnetCDF header": {func(s *play, ranks []*actor) {
			for _, r := range ranks {
				r.rdwr("f.nc")
			}
			ranks[0].write("f.nc", 0, 512).fsync("f.nc")
			for _, r := range ranks[1:] {
				r.read("f.nc", 0, 512)
			}
		}, "f.nc", consistency.Commit, "do not open the file anew"},
		"progress file": {func(s *play, ranks []*actor) {
			ranks[0].wronly("log")
			ranks[1].rdonly("log")
			ranks[0].write("log", 0, 10)
			ranks[1].read("log", 0, 4096)
		}, "log", consistency.Strong, "before their writer has synchronised"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newPlay()
			tt.play(s, s.ranks(3))
			f := s.file(tt.file, Options{})
			require.Equal(t, tt.want, f.Advice, "%+v", f)
			require.Contains(t, f.Why, tt.why)
		})
	}
}
