// Package local brings a whole system on this machine up and down, and asks
// its processes how they are.
//
// A system is described by a cluster.File. Every role is a process of its own,
// this same executable with another subcommand, that outlives the command that
// started it. The package knows the order in which roles depend on each other:
// servers, I/O nodes, mounts. What a role does is not its business. One Up or
// Down works on a directory at a time, which the lock of package cluster sees
// to; everything else is safe for concurrent use.
package local

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"

	"github.com/zoidfs/zoidfs/cmd/zoidfs/internal/cluster"
	"github.com/zoidfs/zoidfs/fs"
	"github.com/zoidfs/zoidfs/internal/consistency"
	"github.com/zoidfs/zoidfs/pvfs/fsconf"
)

// FSName is the name of the file system that embedded servers form.
const FSName = "zoidfs"

// collectiveDefault is what a system does that was not told.
const collectiveDefault = "on"

// Limits of a system on one machine.
const (
	maxNodes   = 64
	maxIONs    = 64
	maxServers = 64
)

// Want is what the user asked for. Zero fields leave the choice to what there
// is, or to the defaults of a new system.
type Want struct {
	Nodes, IONs, Servers int
	PVFS                 string // use these servers instead of embedded ones
	Consistency          string // mode of the mounts
	Visibility           string // of eventual writes, a duration
	Collective           string // whether calls are merged: on, off
	Metrics              bool   // of every process, on a free port
}

// Validate names the first field that is wrong.
func (w Want) Validate() error {
	for _, n := range []struct {
		flag     string
		got, max int
	}{{"--nodes", w.Nodes, maxNodes}, {"--ions", w.IONs, maxIONs}, {"--servers", w.Servers, maxServers}} {
		if n.got < 0 || n.got > n.max {
			return fmt.Errorf("%s %d is not between 1 and %d", n.flag, n.got, n.max)
		}
	}
	if w.PVFS != "" && w.Servers != 0 {
		return errors.New("--servers and --pvfs exclude each other")
	}
	return nil
}

// plan returns the system that want asks for, given the one that old describes
// (nil: none), without addresses for what is new. Processes that run are kept.
func plan(old *cluster.File, want Want) (*cluster.File, error) {
	if old == nil {
		return fresh(want), nil
	}
	f := *old
	running := Running(old)
	f.Collective = cmp.Or(f.Collective, collectiveDefault) // older systems do not say
	if want.PVFS != "" && want.PVFS != f.PVFS {
		return nil, fmt.Errorf("this system uses %s, not %s; use another --dir", f.PVFS, want.PVFS)
	}
	if want.Servers != 0 && want.Servers != len(f.PVFSD) {
		return nil, fmt.Errorf("this file system is kept on %d embedded servers, not %d; use another --dir", len(f.PVFSD), want.Servers)
	}
	for _, o := range []struct {
		name, want string
		has        *string
	}{{"consistency", want.Consistency, &f.Consistency}, {"visibility", want.Visibility, &f.Visibility}, {"collective", want.Collective, &f.Collective}} {
		if o.want == "" {
			continue
		}
		if running > 0 && o.want != *o.has {
			return nil, fmt.Errorf("the system runs with %s %s; take it down first", o.name, *o.has)
		}
		*o.has = o.want
	}
	if want.IONs != 0 && want.IONs != len(f.IONs) {
		if running > 0 {
			return nil, fmt.Errorf("the system runs with %d I/O nodes, not %d; take it down first", len(f.IONs), want.IONs)
		}
		f.IONs = resize(f.IONs, want.IONs)
	}
	if want.Nodes != 0 && want.Nodes < len(f.Nodes) && running > 0 {
		return nil, fmt.Errorf("the system runs with %d nodes, not %d; take it down first", len(f.Nodes), want.Nodes)
	}
	if want.Nodes != 0 {
		f.Nodes = resize(f.Nodes, want.Nodes)
	}
	if running == 0 {
		f.Metrics = want.Metrics
	}
	name(&f)
	return &f, nil
}

// fresh returns a system that has never run.
func fresh(want Want) *cluster.File {
	f := &cluster.File{
		Version:     cluster.Version,
		PVFS:        want.PVFS,
		PVFSD:       []cluster.Server{},
		IONs:        make([]cluster.ION, cmp.Or(want.IONs, 2)),
		Nodes:       make([]cluster.Node, cmp.Or(want.Nodes, 2)),
		Consistency: cmp.Or(want.Consistency, consistency.Strong.String()),
		Visibility:  cmp.Or(want.Visibility, fs.DefaultVisibility.String()),
		Collective:  cmp.Or(want.Collective, collectiveDefault),
		Metrics:     want.Metrics,
	}
	if want.PVFS == "" {
		f.PVFSD = make([]cluster.Server, cmp.Or(want.Servers, 4))
		f.FSID = 1 + rand.Int32N(1<<31-2)
	}
	name(f)
	return f
}

func name(f *cluster.File) {
	for i := range f.PVFSD {
		f.PVFSD[i].Alias = cluster.ServerName(i)
	}
	for i := range f.Nodes {
		f.Nodes[i].Name = cluster.NodeName(i)
	}
}

// resize returns a copy of s with n elements, the new ones zero.
func resize[T any](s []T, n int) []T {
	out := make([]T, n)
	copy(out, s)
	return out
}

// addresses gives every process in f that does not run an address that is
// free, the one it had if possible: clients that are waiting for a server to
// come back know no other. Where a taken address is known to processes that
// run, that is an error.
func addresses(f *cluster.File) error {
	var taken []string
	var need []*string
	check := func(addr *string, alive bool, name string, known bool) error {
		if *addr != "" && !alive && cluster.InUse(*addr) {
			if known {
				return fmt.Errorf("%s, the address of %s, is taken by another process, and others of this system rely on it: "+
					"zoidfs down, then up, gives it a new one", *addr, name)
			}
			*addr = ""
		}
		if *addr == "" {
			need = append(need, addr)
		} else {
			taken = append(taken, *addr)
		}
		return nil
	}
	known := Running(f) > 0
	for i := range f.PVFSD {
		s := &f.PVFSD[i]
		if err := check(&s.Addr, s.Alive(), s.Alias, known); err != nil {
			return err
		}
	}
	for i := range f.IONs {
		s := &f.IONs[i]
		if err := check(&s.Addr, s.Alive(), cluster.IONName(i), known); err != nil {
			return err
		}
	}
	for _, r := range roles(f) {
		switch {
		case r.Alive():
		case !f.Metrics:
			r.Metrics = ""
		default: // nobody relies on these
			if err := check(&r.Metrics, false, "metrics", false); err != nil {
				return err
			}
		}
	}
	addrs, err := cluster.FreeAddrs(len(need), taken)
	if err != nil {
		return err
	}
	for i, p := range need {
		*p = addrs[i]
	}
	if len(f.PVFSD) > 0 {
		f.PVFS = "tcp://" + f.PVFSD[0].Addr + "/" + FSName
	}
	return nil
}

// writeConf writes the configuration of the embedded servers, if there are
// any.
func writeConf(d cluster.Dir, f *cluster.File) error {
	if len(f.PVFSD) == 0 {
		return nil
	}
	opt := fsconf.GenOptions{FSName: FSName, FSID: f.FSID, SyncMeta: true}
	for _, s := range f.PVFSD {
		opt.Servers = append(opt.Servers, fsconf.ServerSpec{Alias: s.Alias, Addr: s.Addr, Dir: d.Data(s.Alias)})
	}
	text, err := fsconf.Generate(opt)
	if err != nil {
		return err
	}
	if old, err := os.ReadFile(d.Conf()); err == nil && string(old) == text {
		return nil
	}
	return cluster.WriteFile(d.Conf(), []byte(text), 0o644)
}

// roles returns what all processes of f have in common: servers first, then
// I/O nodes, then mounts.
func roles(f *cluster.File) []*cluster.Role {
	var out []*cluster.Role
	for i := range f.PVFSD {
		out = append(out, &f.PVFSD[i].Role)
	}
	for i := range f.IONs {
		out = append(out, &f.IONs[i].Role)
	}
	for i := range f.Nodes {
		out = append(out, &f.Nodes[i].Role)
	}
	return out
}

// Running returns how many processes of f are alive.
func Running(f *cluster.File) int {
	n := 0
	for _, r := range roles(f) {
		if r.Alive() {
			n++
		}
	}
	return n
}

// ionAddrs returns the addresses of all I/O nodes, separated by commas.
func ionAddrs(f *cluster.File) string {
	addrs := make([]string, len(f.IONs))
	for i, ion := range f.IONs {
		addrs[i] = ion.Addr
	}
	return strings.Join(addrs, ",")
}
