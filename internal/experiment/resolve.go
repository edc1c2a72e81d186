package experiment

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// resolve looks up the workloads and faults that the matrix names.
func (p *parser) resolve(root *yaml.Node) {
	s := &p.spec
	if s.Matrix.Workload == nil {
		for _, w := range s.Workloads {
			s.Matrix.Workload = append(s.Matrix.Workload, w.Name)
		}
	}
	if len(s.Matrix.Workload) == 0 {
		p.fail(root, "no workload: name some in matrix, of the kinds %s, or describe them in workloads", strings.Join(kindNames(), ", "))
	}
	for i, name := range s.Matrix.Workload {
		if p.workloads[name] != nil {
			continue
		}
		at := p.at(FactorWorkload, i)
		if _, ok := KindOf(name); !ok || name == Command {
			p.fail(at, "there is no workload %q; described are %s; kinds are %s", name, orNone(sorted(p.workloads)), strings.Join(kindNames(), ", "))
			continue
		}
		w := defaults(name)
		w.Name = name
		p.workloads[name] = at
		s.Workloads = append(s.Workloads, w)
	}
	for i, name := range s.Matrix.Fault {
		if name != NoFault && p.faults[name] == nil {
			p.fail(p.at(FactorFault, i), "there is no fault %q; there are %s", name, strings.Join(append([]string{NoFault}, sorted(p.faults)...), ", "))
		}
	}
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// at is the place of the i-th value of a factor in the file.
func (p *parser) at(factor string, i int) *yaml.Node {
	n := p.matrix[factor]
	if n == nil {
		return &yaml.Node{Line: 1}
	}
	if n.Kind == yaml.SequenceNode && i < len(n.Content) {
		return n.Content[i]
	}
	return n
}

// checkCells checks what combinations make of their parts.
func (p *parser) checkCells() {
	s := &p.spec
	for i, m := range s.Exclude {
		if !slices.ContainsFunc((&Spec{Matrix: s.Matrix, Workloads: s.Workloads}).Cells(), func(c Cell) bool { return c.In(m) }) {
			p.fail(p.exclude[i], "excludes nothing: no combination of the matrix has these values")
		}
	}
	cells := s.Cells()
	switch {
	case len(cells) == 0:
		p.fail(p.at(FactorMode, 0), "%v", errNothing)
	case len(cells) > maxCells:
		p.fail(p.at(FactorMode, 0), "%d combinations are more than %d", len(cells), maxCells)
	}
	told := map[string]bool{}
	for _, c := range cells {
		if why := s.impossible(c); why != "" && !told[why] {
			told[why] = true
			at := p.workloads[c.Workload]
			if f := s.Fault(c.Fault); f != nil && strings.HasPrefix(why, "fault") {
				at = p.faults[f.Name]
			}
			p.fail(at, "%s", why)
		}
	}
}

// impossible says why a cell cannot be run, "" if it can.
func (s *Spec) impossible(c Cell) string {
	w := s.Workload(c.Workload)
	say := func(parts ...string) string { return "workload " + w.Name + ": " + strings.Join(parts, " ") }
	switch w.Kind {
	case Checkpoint, Restart, Input:
		if w.Size%c.Transfer != 0 {
			return say("size", FormatSize(w.Size), "is no multiple of the transfer size", FormatSize(c.Transfer))
		}
	case Exchange:
		if c.Ranks%2 != 0 {
			return say("needs an even number of ranks, half of them read, not", c.Value(FactorRanks))
		}
	case Log, Update:
		if c.Transfer < MinRecord {
			return say("needs a transfer size of at least", FormatSize(MinRecord)+", not", FormatSize(c.Transfer))
		}
	}
	f := s.Fault(c.Fault)
	if f == nil {
		return ""
	}
	have := map[string]int{TargetION: c.IONs, TargetServer: c.Servers, TargetNode: min(c.Nodes, c.Ranks)}[f.Target]
	if f.Index >= have {
		return "fault " + f.Name + ": there is no " + f.Target + " with this index where there are " + c.Value(map[string]string{TargetION: FactorIONs, TargetServer: FactorServers, TargetNode: FactorNodes}[f.Target]) + ", from 0"
	}
	if f.Target == TargetNode && w.Kind != Checkpoint {
		return "fault " + f.Name + ": only a " + Checkpoint + " can go on without the ranks of a node, not workload " + w.Name
	}
	return ""
}

// MinRecord is the least size of a record of log and update: its number, its
// writer and a checksum.
const MinRecord = 32
