package experiment

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// Cells are the combinations of the matrix in the order in which it names them,
// without those that are excluded. A workload with a transfer size of its own,
// or without any, comes once and not for each transfer size.
func (s *Spec) Cells() []Cell {
	m := &s.Matrix
	cells := []Cell{{}}
	cells = cross(cells, m.Workload, func(c *Cell, v string) { c.Workload = v })
	cells = cross(cells, m.Nodes, func(c *Cell, v int) { c.Nodes = v })
	cells = cross(cells, m.IONs, func(c *Cell, v int) { c.IONs = v })
	cells = cross(cells, m.Servers, func(c *Cell, v int) { c.Servers = v })
	cells = cross(cells, m.Ranks, func(c *Cell, v int) { c.Ranks = v })
	cells = cross(cells, m.Transfer, func(c *Cell, v int64) {
		if c.Transfer = v; s.Workload(c.Workload).Transfer != 0 {
			c.Transfer = s.Workload(c.Workload).Transfer
		}
		if s.Workload(c.Workload).Kind == Metadata {
			c.Transfer = 0
		}
	})
	cells = cross(cells, m.Fault, func(c *Cell, v string) { c.Fault = v })
	cells = cross(cells, m.Collective, func(c *Cell, v string) { c.Collective = v })
	cells = cross(cells, m.Mode, func(c *Cell, v string) { c.Mode = v })
	var out []Cell
	seen := map[Cell]bool{}
	for _, c := range cells {
		if !seen[c] && !slices.ContainsFunc(s.Exclude, c.In) {
			out = append(out, c)
		}
		seen[c] = true
	}
	return out
}

// cross returns each of cells with each of values.
func cross[T any](cells []Cell, values []T, set func(*Cell, T)) []Cell {
	out := make([]Cell, 0, len(cells)*len(values))
	for _, c := range cells {
		for _, v := range values {
			set(&c, v)
			out = append(out, c)
		}
	}
	return out
}

// Trial is one planned measurement.
type Trial struct {
	Cell
	Repetition int // from 0
}

// ID names a trial within an experiment.
func (t Trial) ID() string {
	var parts []string
	for _, f := range Factors() {
		switch f {
		case FactorRanks, FactorNodes, FactorIONs, FactorServers:
			parts = append(parts, t.Value(f)+f)
		case FactorCollective:
			parts = append(parts, f+"-"+t.Value(f))
		default:
			parts = append(parts, t.Value(f))
		}
	}
	return fmt.Sprintf("%s.%d", strings.Join(parts, "."), t.Repetition)
}

// Plan is the order in which an experiment is made. Each repetition is a block
// that has every cell once. The cells of one shape come together, so that a
// block starts each system once; the order of the shapes and that of the
// cells are drawn anew for each block, from the seed.
func (s *Spec) Plan() []Trial {
	cells := s.Cells()
	var shapes []Shape
	for _, c := range cells {
		if !slices.Contains(shapes, c.Shape) {
			shapes = append(shapes, c.Shape)
		}
	}
	var out []Trial
	for rep := range s.Repetitions {
		rng := s.rng(uint64(rep))
		for _, i := range rng.Perm(len(shapes)) {
			of := slices.DeleteFunc(slices.Clone(cells), func(c Cell) bool { return c.Shape != shapes[i] })
			for _, k := range rng.Perm(len(of)) {
				out = append(out, Trial{of[k], rep})
			}
		}
	}
	return out
}

// Warmups are the cells that are run, and not counted, after a system of a shape
// was started: no faults among them, if that can be.
func (s *Spec) Warmups(shape Shape) []Cell {
	of := slices.DeleteFunc(s.Cells(), func(c Cell) bool { return c.Shape != shape })
	calm := slices.DeleteFunc(slices.Clone(of), func(c Cell) bool { return c.Fault != NoFault })
	if len(calm) > 0 {
		of = calm
	}
	rng := s.rng(1 << 32)
	var out []Cell
	for len(out) < s.Warmup && len(of) > 0 {
		out = append(out, of[rng.IntN(len(of))])
	}
	return out
}

// rng makes the choices of one purpose.
func (s *Spec) rng(purpose uint64) *rand.Rand { return rand.New(rand.NewPCG(uint64(s.Seed), purpose)) }
