package litmus

import (
	"golang.org/x/sys/unix"

	"github.com/zoidfs/zoidfs/internal/history"
)

// test is a litmus test: a program, written down anew for every round, and what
// it must show. Tests and their numbers are those of docs/litmus.md.
type test struct {
	name, title string
	promise
	write func(s *script)
}

// tests are all litmus tests but the crash test. P is on node A, Q on node B; ⇒
// is an arrow of the program, ‖ means at the same time.
var tests = []test{
	{"L1", "P:W ⇒ Q:R", exactly("1", in(strong)), func(s *script) {
		P, Q, x := s.on(nodeA), s.on(nodeB), s.x
		s.opened(x, P, Q)
		P.write(x, 1)
		s.then()
		Q.see(x)
	}},
	{"L1d", "P:W ⇒ (Δ) Q:R", exactly("1", in(strong, eventual)), func(s *script) {
		P, Q, x := s.on(nodeA), s.on(nodeB), s.x
		s.opened(x, P, Q)
		P.write(x, 1)
		s.settle()
		Q.see(x)
	}},
	{"L1n", "P:W ⇒ R:R on P's node", exactly("1", all), func(s *script) {
		P, R, x := s.on(nodeA), s.on(nodeA), s.x
		s.opened(x, P, R)
		P.write(x, 1)
		s.then()
		R.see(x)
	}},
	{"L1h", "P:W ⇒ P,R on its node: R of the hole before it", exactly("0,0", all), func(s *script) {
		P, R, x := s.on(nodeA), s.on(nodeA), s.x
		x.Off += 4097
		hole := place{x.name, history.Range{Off: x.Off - 4097, Len: 4097}}
		s.shared(x, P, R)
		P.write(x, 1)
		s.then()
		P.see(hole)
		R.see(hole)
	}},
	{"L2", "P:W,fsync ⇒ Q:R", exactly("1", in(strong, commit, laminated)), func(s *script) {
		P, Q, x := s.on(nodeA), s.on(nodeB), s.x
		s.opened(x, P, Q)
		P.write(x, 1).fsync(x)
		s.then()
		Q.see(x)
	}},
	{"L2s", "P:W by O_SYNC ⇒ Q:R", exactly("1", in(strong, commit, laminated)), func(s *script) {
		P, Q, x := s.on(nodeA), s.on(nodeB), s.x
		s.opened(x, P, Q)
		P.open(x.name, unix.O_RDWR|unix.O_SYNC).write(x, 1)
		s.then()
		Q.see(x)
	}},
	{"L3", "P:W,close ⇒ Q:open,R", exactly("1", in(strong, commit, laminated, session)), func(s *script) {
		P, Q, x := s.on(nodeA), s.on(nodeB), s.x
		s.opened(x, P, Q)
		P.write(x, 1).close(x)
		s.then()
		Q.reader(x).see(x)
	}},
	{"L4", "P:W,close ⇒ Q:R by the old file", exactly("1", in(strong, commit, laminated)), func(s *script) {
		P, Q, x := s.on(nodeA), s.on(nodeB), s.x
		s.opened(x, P, Q)
		P.write(x, 1).close(x)
		s.then()
		Q.see(x)
	}},
	{"L5", "P:W,fsync ⇒ Q:fsync,R", exactly("1", in(strong, commit, laminated)), func(s *script) {
		P, Q, x := s.on(nodeA), s.on(nodeB), s.x
		s.opened(x, P, Q)
		P.write(x, 1).fsync(x)
		s.then()
		Q.fsync(x).see(x)
	}},
	{"L6", "P:W ⇒ Q:open,R", exactly("1", in(strong)), func(s *script) {
		P, Q, x := s.on(nodeA), s.on(nodeB), s.x
		s.opened(x, P, Q)
		P.write(x, 1)
		s.then()
		Q.reader(x).see(x)
	}},
	{"L7", "P:W,fsync ‖ Q:R,R,R,R", forward(all), func(s *script) {
		P, Q, x := s.on(nodeA), s.on(nodeB), s.x
		s.opened(x, P, Q)
		P.write(x, 1).fsync(x)
		Q.see(x).see(x).see(x).see(x)
	}},
	{"L8", "P:W(x),W(y) ‖ Q:R(y),R(x)", never("1,0", in(strong)), func(s *script) {
		P, Q, x, y := s.on(nodeA), s.on(nodeB), s.x, s.y
		s.opened(x, P, Q)
		s.opened(y, P, Q)
		P.write(x, 1).write(y, 1)
		Q.see(y).see(x)
	}},
	{"L9", "P:W ‖ Q:W bytes between P's, both fsync ⇒ R:open,R", exactly("1+2", all), func(s *script) {
		P, Q, R, x := s.on(nodeA), s.on(nodeB), s.on(nodeC), s.wide(8)
		s.shared(x, P, Q)
		for i := range int64(4) {
			P.write(x.part(2*i, 8), 1)
			Q.write(x.part(2*i+1, 8), 2)
		}
		P.fsync(x)
		Q.fsync(x)
		s.settle()
		R.reader(x).see(x)
	}},
	{"L9a", "P:W ⇒ Q:sieve around ⇒ both fsync ⇒ R:open,R", exactly("1+2", all), func(s *script) {
		P, Q, R, x := s.on(nodeA), s.on(nodeB), s.on(nodeC), s.wide(2)
		s.shared(x, P, Q)
		P.write(x.part(0, 2), 1)
		s.then()
		Q.sieve(x, x.part(1, 2), 2)
		s.published(x, P, Q)
		R.reader(x).see(x)
	}},
	{"L9b", "Q:sieve around ⇒ P:W ⇒ both fsync ⇒ R:open,R", exactly("1+2", all), func(s *script) {
		P, Q, R, x := s.on(nodeA), s.on(nodeB), s.on(nodeC), s.wide(2)
		s.shared(x, P, Q)
		Q.sieve(x, x.part(1, 2), 2)
		s.then()
		P.write(x.part(0, 2), 1)
		s.published(x, P, Q)
		R.reader(x).see(x)
	}},
	{"L9c", "P:W,fsync ⇒ Q:sieve around by the old file,fsync ⇒ R:open,R", exactly("1+2", all), func(s *script) {
		P, Q, R, x := s.on(nodeA), s.on(nodeB), s.on(nodeC), s.wide(2)
		s.shared(x, P, Q)
		P.write(x.part(0, 2), 1).fsync(x)
		s.then()
		Q.sieve(x, x.part(1, 2), 2).fsync(x)
		s.settle()
		R.reader(x).see(x)
	}},
	{"L10", "P:W=1,fsync ⇒ Q:W=2,fsync ⇒ R:open,R", exactly("2", all), func(s *script) {
		P, Q, R, x := s.on(nodeA), s.on(nodeB), s.on(nodeC), s.x
		s.shared(x, P, Q)
		P.write(x, 1).fsync(x)
		s.then()
		Q.write(x, 2).fsync(x)
		s.settle()
		R.reader(x).see(x)
	}},
	{"L11", "P:W=1 ‖ Q:W=2, both fsync ⇒ R:open,R", without("0", all), func(s *script) {
		P, Q, R, x := s.on(nodeA), s.on(nodeB), s.on(nodeC), s.x
		s.shared(x, P, Q)
		P.write(x, 1).fsync(x)
		Q.write(x, 2).fsync(x)
		s.settle()
		R.reader(x).see(x)
	}},
	{"L12", "all: 4 times lock,R,W=R+1,unlock", exactly("16", all), func(s *script) {
		x := s.x
		procs := []*actor{s.on(nodeA), s.on(nodeB), s.on(nodeC), s.on(nodeA)}
		s.shared(x, procs[0], procs[1:]...)
		for range 4 {
			for _, p := range procs {
				p.lock(x).incr(x).unlock(x)
			}
		}
		s.then()
		procs[1].lock(x).see(x).unlock(x)
	}},
	{"L12a", "P:lock,W,unlock ⇒ Q:lock,R", exactly("1", all), func(s *script) {
		P, Q, x := s.on(nodeA), s.on(nodeB), s.x
		s.shared(x, P, Q)
		P.lock(x).write(x, 1).unlock(x)
		s.then()
		Q.lock(x).see(x).unlock(x)
	}},
	{"L12s", "all: lock,sieve,unlock in one window ⇒ R:open,R", exactly("1+2+3", all), func(s *script) {
		x := s.wide(3)
		R, procs := s.on(nodeB), []*actor{s.on(nodeA), s.on(nodeB), s.on(nodeC)}
		s.shared(x, procs[0], procs[1:]...)
		for i, p := range procs {
			p.lock(x).sieve(x, x.part(int64(i), 3), uint8(i+1)).unlock(x)
		}
		s.then()
		R.reader(x).lockRead(x)
	}},
	{"L13", "Q:open fails ⇒ P:create,close ⇒ all:open", exactly("ENOENT,ok,ok", all), func(s *script) {
		P, Q, R, x := s.on(nodeA), s.on(nodeB), s.on(nodeC), s.x
		Q.opens(x)
		s.then()
		P.open(x.name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL).close(x)
		s.then()
		Q.opens(x)
		R.opens(x)
	}},
	{"L14", "P:W,fsync ⇒ P:ftruncate(0) ⇒ Q:fstat", exactly("0", all), func(s *script) {
		P, Q, x := s.on(nodeA), s.on(nodeB), s.x
		s.opened(x, P, Q)
		P.write(x, 1).fsync(x)
		s.then()
		s.warm(Q, x)
		Q.add(history.Event{Op: history.Fstat, FD: Q.fds[x.name]})
		s.then()
		P.truncate(x, 0)
		s.then()
		Q.size(x, history.Fstat, x.end())
	}},
	{"L14r", "P:W,fsync ⇒ P:ftruncate(0),ftruncate(end) ⇒ Q:R", exactly("0", all), func(s *script) {
		P, Q, x := s.on(nodeA), s.on(nodeB), s.x
		s.opened(x, P, Q)
		P.write(x, 1).fsync(x)
		s.then()
		s.warm(Q, x)
		s.then()
		P.truncate(x, 0).truncate(x, x.end())
		s.then()
		Q.see(x)
	}},
	{"L15", "all: 4 appends, fsync ⇒ R:open,R", exactly("12 values", all), func(s *script) {
		x := place{"log", history.Range{Len: 64 << 20}}
		n := []int64{1, 8, 4097, 64<<10 + 1}[s.rng.Intn(4)]
		R, procs := s.on(nodeB), []*actor{s.on(nodeA), s.on(nodeB), s.on(nodeC)}
		base := s.rng.Int63n(2) * (domain - 6*n - 1)
		procs[0].create(x).truncate(x, base).close(x)
		s.then()
		for i, p := range procs {
			p.open(x.name, unix.O_WRONLY|unix.O_APPEND)
			for k := range 4 {
				p.append(x, n, uint8(4*i+k+1))
			}
			p.fsync(x)
		}
		s.settle()
		x.Off, x.Len = base, 12*n+1
		R.reader(x).see(x)
	}},
	{"L17", "P:store,msync ⇒ Q:R", exactly("1", in(strong, commit, laminated)), func(s *script) {
		P, Q, x := s.on(nodeA), s.on(nodeB), s.x
		P.create(x).truncate(x, x.end())
		s.then()
		Q.reader(x)
		s.warm(Q, x)
		s.then()
		P.store(x, 1)
		s.then()
		Q.see(x)
	}},
	{"L17o", "P:store,msync ⇒ Q:open,load", exactly("1", in(strong, commit, laminated, session)), func(s *script) {
		P, Q, x := s.on(nodeA), s.on(nodeB), s.x
		P.create(x).truncate(x, x.end()).store(x, 1)
		s.then()
		Q.reader(x).load(x)
	}},
	{"L17w", "P:W,close ⇒ Q:open,load", exactly("1", in(strong, commit, laminated, session)), func(s *script) {
		P, Q, x := s.on(nodeA), s.on(nodeB), s.x
		s.opened(x, P, Q)
		P.write(x, 1).close(x)
		s.then()
		Q.reader(x).load(x)
	}},
	{"L18", "P:W,dup,close(dup) ⇒ Q:open,R", exactly("1", in(strong, commit, laminated, session)), func(s *script) {
		P, Q, x := s.on(nodeA), s.on(nodeB), s.x
		s.opened(x, P, Q)
		P.write(x, 1).dupClose(x)
		s.then()
		Q.reader(x).see(x)
	}},
	{"L19", "P:W,fork, child ends ⇒ Q:open,R", exactly("1", in(strong, commit, laminated, session)), func(s *script) {
		P, Q, x := s.on(nodeA), s.on(nodeB), s.x
		s.opened(x, P, Q)
		P.write(x, 1).forkClose(x)
		s.then()
		Q.reader(x).see(x)
	}},
	{"L20", "P:W ⇒ Q:stat", exactly("full", in(strong)), func(s *script) {
		P, Q, x := s.on(nodeA), s.on(nodeB), s.x
		s.opened(x, P, Q)
		P.write(x, 1)
		s.then()
		Q.size(x, history.Stat, x.end())
	}},
	{"L20f", "P:W,fsync ⇒ Q:lseek(end)", exactly("full", in(strong, commit, laminated)), func(s *script) {
		P, Q, x := s.on(nodeA), s.on(nodeB), s.x
		s.opened(x, P, Q)
		P.write(x, 1).fsync(x)
		s.then()
		Q.size(x, history.SeekEnd, x.end())
	}},
	{"L20o", "P:W,close ⇒ Q:open,fstat", exactly("full", in(strong, commit, laminated, session)), func(s *script) {
		P, Q, x := s.on(nodeA), s.on(nodeB), s.x
		s.opened(x, P, Q)
		P.write(x, 1).close(x)
		s.then()
		Q.reader(x).size(x, history.Fstat, x.end())
	}},
	{"L21", "P:W(tmp),close,rename(final) ⇒ Q:open(final),R", exactly("1", all), func(s *script) {
		P, Q, tmp, final := s.on(nodeA), s.on(nodeB), s.x, s.x
		tmp.name, final.name = "tmp", "final"
		s.opened(final, Q, P) // the one before
		Q.write(final, 2).close(final)
		s.then()
		P.open(tmp.name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL).write(tmp, 1).close(tmp).rename(tmp.name, final.name)
		s.then()
		Q.reader(final).see(final)
	}},
	{"L21w", "P:W(tmp),rename(final) ⇒ Q:open(final),R", exactly("1", all), func(s *script) {
		P, Q, tmp, final := s.on(nodeA), s.on(nodeB), s.x, s.x
		tmp.name, final.name = "tmp", "final"
		P.create(tmp).write(tmp, 1).rename(tmp.name, final.name)
		s.then()
		Q.reader(final).see(final)
	}},
	{"L22", "P:W(x) ‖ Q:W(y) ‖ R:R(x),R(y) ‖ S:R(y),R(x)", never("1,0,1,0", in(strong)), func(s *script) {
		P, Q, R, S, x, y := s.on(nodeA), s.on(nodeB), s.on(nodeC), s.on(nodeB), s.x, s.y
		P.create(x).create(y)
		s.then()
		for _, a := range []*actor{Q, R, S} {
			a.writer(x).writer(y)
			s.warm(a, x)
		}
		s.then()
		P.write(x, 1)
		Q.write(y, 1)
		R.see(x).see(y)
		S.see(y).see(x)
	}},
	{"LA1", "P:W,chmod a-w ⇒ Q:R", exactly("1", in(strong, laminated)), func(s *script) {
		P, Q, x := s.on(nodeA), s.on(nodeB), s.x
		s.opened(x, P, Q)
		P.write(x, 1).chmod(x, 0o444)
		s.then()
		Q.see(x)
	}},
	{"LA2", "P:W,chmod a-w ⇒ Q:W=2 by the old file ⇒ R:open,R", exactly("EPERM,1", in(laminated)), func(s *script) {
		P, Q, R, x := s.on(nodeA), s.on(nodeB), s.on(nodeC), s.x
		s.shared(x, P, Q)
		P.write(x, 1).chmod(x, 0o444)
		s.then()
		w := Q.at(history.Write, x)
		w.Value = 2
		Q.mark(w)
		s.settle()
		R.open(x.name, unix.O_RDONLY).see(x)
	}},
	{"LA3", "P:W,chmod a-w ⇒ P:chmod u+w ⇒ Q:W=2,fsync ⇒ R:open,R", exactly("2", all), func(s *script) {
		P, Q, R, x := s.on(nodeA), s.on(nodeB), s.on(nodeC), s.x
		s.shared(x, P, Q)
		P.write(x, 1).fsync(x).chmod(x, 0o444).chmod(x, 0o644)
		s.then()
		Q.write(x, 2).fsync(x)
		s.settle()
		R.open(x.name, unix.O_RDONLY).see(x)
	}},
}
