package experiment

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/zoidfs/zoidfs/internal/consistency"
)

// Limits of what a file may ask for.
const (
	maxRanks       = 512
	maxRoles       = 64
	maxTransfer    = 64 << 20
	maxBytes       = 64 << 30
	maxCount       = 1 << 20
	maxRepetitions = 1000
	maxCells       = 10000
	// MaxVersions is how often one byte can be written so that each write can
	// be told from the others.
	MaxVersions = 250
)

// parser reads a file and remembers where things are in it.
type parser struct {
	reader
	spec      Spec
	matrix    map[string]*yaml.Node // by factor
	workloads map[string]*yaml.Node // by name
	faults    map[string]*yaml.Node
	exclude   []*yaml.Node // of each element of spec.Exclude
}

// Parse reads an experiment. The error names each mistake by FILE:LINE and says
// what would be allowed in its place.
func Parse(file string, text []byte) (*Spec, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, syntaxError(file, err)
	}
	if len(doc.Content) == 0 {
		return nil, fmt.Errorf("%s: is empty; see docs/experiments.md", file)
	}
	p := &parser{reader: reader{file: file}, matrix: map[string]*yaml.Node{}, workloads: map[string]*yaml.Node{}, faults: map[string]*yaml.Node{}}
	p.spec = Spec{
		Name:        baseName(file),
		Seed:        1,
		Repetitions: 5,
		Warmup:      1,
		Visibility:  time.Second,
		Timeout:     2 * time.Minute,
		Matrix: Matrix{
			Mode:  []string{"strong", "commit", "session", "eventual"},
			Ranks: []int{4}, Nodes: []int{2}, IONs: []int{2}, Servers: []int{4},
			Transfer: []int64{64 << 10}, Collective: []string{On}, Fault: []string{NoFault},
		},
	}
	p.document(doc.Content[0])
	if len(p.errs) == 0 {
		p.resolve(doc.Content[0])
	}
	if len(p.errs) == 0 {
		p.checkCells()
	}
	if err := p.err(); err != nil {
		return nil, err
	}
	p.spec.Title = cmp.Or(p.spec.Title, p.spec.Name)
	return &p.spec, nil
}

func (p *parser) document(n *yaml.Node) {
	s := &p.spec
	p.fields(n, "an experiment", map[string]func(*yaml.Node){
		"title":       to(&s.Title, p.text),
		"about":       to(&s.About, p.text),
		"seed":        to(&s.Seed, p.seed),
		"repetitions": to(&s.Repetitions, p.integer(1, maxRepetitions)),
		"warmup":      to(&s.Warmup, p.integer(0, maxRepetitions)),
		"visibility":  to(&s.Visibility, p.duration(100*time.Millisecond, time.Hour)),
		"timeout":     to(&s.Timeout, p.duration(time.Second, 24*time.Hour)),
		"matrix":      p.readMatrix,
		"workloads":   func(n *yaml.Node) { p.pairs(n, "workloads", p.readWorkload) },
		"faults":      func(n *yaml.Node) { p.pairs(n, "faults", p.readFault) },
		"exclude":     func(n *yaml.Node) { p.each(n, p.readExclude) },
		"report": func(n *yaml.Node) {
			p.fields(n, "report", map[string]func(*yaml.Node){
				"x": to(&s.Report.X, p.oneOf(Factors()...)), "series": to(&s.Report.Series, p.oneOf(Factors()...)),
			})
		},
	})
}

func (p *parser) readMatrix(n *yaml.Node) {
	m := &p.spec.Matrix
	known := map[string]func(*yaml.Node){
		FactorMode:       list(&p.reader, &m.Mode, p.oneOf(modeNames()...)),
		FactorWorkload:   list(&p.reader, &m.Workload, p.text),
		FactorRanks:      list(&p.reader, &m.Ranks, p.integer(1, maxRanks)),
		FactorNodes:      list(&p.reader, &m.Nodes, p.integer(1, maxRoles)),
		FactorIONs:       list(&p.reader, &m.IONs, p.integer(1, maxRoles)),
		FactorServers:    list(&p.reader, &m.Servers, p.integer(1, maxRoles)),
		FactorTransfer:   list(&p.reader, &m.Transfer, p.size(maxTransfer)),
		FactorCollective: list(&p.reader, &m.Collective, p.oneOf(On, Off)),
		FactorFault:      list(&p.reader, &m.Fault, p.text),
	}
	for factor, read := range known {
		known[factor] = func(n *yaml.Node) {
			p.matrix[factor] = n
			read(n)
		}
	}
	p.fields(n, "matrix", known)
}

func modeNames() (out []string) {
	for _, m := range consistency.All() {
		out = append(out, m.String())
	}
	return out
}

// name is what things are called: it becomes part of file names.
var name = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,39}$`)

func (p *parser) checkName(key *yaml.Node) bool {
	if !name.MatchString(key.Value) {
		p.fail(key, "%q is not a name of small letters, digits, - and _", key.Value)
		return false
	}
	return true
}

func (p *parser) readWorkload(key, n *yaml.Node) {
	if !p.checkName(key) {
		return
	}
	kind := ""
	p.pairs(n, "a workload", func(k, v *yaml.Node) {
		if k.Value == "kind" {
			p.oneOf(kindNames()...)(v, &kind)
		}
	})
	if kind == "" {
		if len(p.errs) == 0 {
			p.fail(key, "workload %s has no kind; there are %s", key.Value, strings.Join(kindNames(), ", "))
		}
		return
	}
	w := defaults(kind)
	w.Name = key.Value
	k, _ := KindOf(kind)
	all := p.params(&w)
	known := map[string]func(*yaml.Node){"kind": func(*yaml.Node) {}, "about": to(&w.About, p.text), "transfer": to(&w.Transfer, p.size(maxTransfer))}
	for _, param := range k.Params {
		known[param] = all[param]
	}
	p.fields(n, "workload "+w.Name+" of kind "+kind, known)
	p.checkWorkload(key, &w)
	p.workloads[w.Name] = key
	p.spec.Workloads = append(p.spec.Workloads, w)
}

// params are the readers of all parameters that a workload can have.
func (p *parser) params(w *Workload) map[string]func(*yaml.Node) {
	return map[string]func(*yaml.Node){
		"pattern":  to(&w.Pattern, p.oneOf(Segmented, Strided, Nested, FilePerProcess)),
		"size":     to(&w.Size, p.size(maxBytes)),
		"sync":     to(&w.Sync, p.oneOf(syncs(w.Kind)...)),
		"notify":   to(&w.Notify, p.oneOf(Polling, Message)),
		"count":    to(&w.Count, p.integer(1, maxCount)),
		"interval": to(&w.Interval, p.duration(0, time.Minute)),
		"files":    to(&w.Files, p.integer(1, maxCount)),
		"records":  to(&w.Records, p.integer(1, maxCount)),
		"shared":   to(&w.Shared, p.boolean),
		"reopen":   to(&w.Reopen, p.boolean),
		"command":  to(&w.Command, p.text),
		"each":     to(&w.Each, p.boolean),
		"parse":    list(&p.reader, &w.Parse, p.text),
		"figure":   to(&w.Figure, p.text),
		"unit":     to(&w.Unit, p.text),
		"better":   to(&w.Better, p.oneOf(Higher, Lower)),
	}
}

func syncs(kind string) []string {
	if kind == Exchange {
		return []string{SyncMode, SyncNone, SyncFsync, SyncClose}
	}
	return []string{SyncNone, SyncFsync}
}

// checkWorkload checks what does not depend on the matrix.
func (p *parser) checkWorkload(at *yaml.Node, w *Workload) {
	if w.Kind == Exchange && w.Count > MaxVersions {
		p.fail(at, "workload %s: count %d is more than %d, the number of versions that can be told apart", w.Name, w.Count, MaxVersions)
	}
	if w.Kind != Command {
		return
	}
	if w.Better == "" {
		w.Better = Higher
	}
	if w.Figure == "seconds" {
		w.Better, w.Unit = Lower, "s"
	}
	if w.Command == "" {
		p.fail(at, "workload %s: which command?", w.Name)
	}
	groups := []string{"seconds"}
	for _, e := range w.Parse {
		re, err := regexp.Compile(e)
		if err != nil {
			p.fail(at, "workload %s: parse: %v", w.Name, err)
			continue
		}
		groups = append(groups, re.SubexpNames()...)
	}
	groups = slices.DeleteFunc(groups, func(g string) bool { return g == "" })
	if !slices.Contains(groups, w.Figure) {
		p.fail(at, "workload %s: figure %q is none of %s, the named groups of parse", w.Name, w.Figure, strings.Join(groups, ", "))
	}
}

func (p *parser) readFault(key, n *yaml.Node) {
	if !p.checkName(key) {
		return
	}
	if key.Value == NoFault {
		p.fail(key, "%q is the absence of a fault", NoFault)
	}
	f := Fault{Name: key.Value, Restart: time.Second}
	p.fields(n, "fault "+f.Name, map[string]func(*yaml.Node){
		"kill":    to(&f.Target, p.oneOf(TargetION, TargetServer, TargetNode)),
		"index":   to(&f.Index, p.integer(0, maxRoles-1)),
		"at":      func(n *yaml.Node) { p.readMoment(n, &f) },
		"restart": to(&f.Restart, p.duration(0, time.Hour)),
	})
	if f.Target == "" {
		p.fail(key, "fault %s: kill what? %s, %s or %s", f.Name, TargetION, TargetServer, TargetNode)
	}
	if f.After == 0 && f.Fraction == 0 {
		f.Fraction = 0.5
	}
	p.faults[f.Name] = key
	p.spec.Faults = append(p.spec.Faults, f)
}

// readMoment reads a time since the start of the phase, or a share of its
// calls in percent.
func (p *parser) readMoment(n *yaml.Node, f *Fault) {
	if percent, ok := strings.CutSuffix(n.Value, "%"); ok {
		var v int
		p.integer(1, 99)(&yaml.Node{Kind: n.Kind, Line: n.Line, Value: strings.TrimSpace(percent)}, &v)
		f.Fraction = float64(v) / 100
		return
	}
	d, err := time.ParseDuration(n.Value)
	if err != nil || d <= 0 || d > time.Hour {
		p.fail(n, "%q is neither a time such as 500ms nor a share such as 50%%", n.Value)
	}
	f.After = d
}

func (p *parser) readExclude(n *yaml.Node) {
	m := Match{}
	p.pairs(n, "an element of exclude", func(key, value *yaml.Node) {
		if !slices.Contains(Factors(), key.Value) {
			p.fail(key, "%q is no factor; there are %s", key.Value, strings.Join(Factors(), ", "))
			return
		}
		p.each(value, func(v *yaml.Node) {
			text := v.Value
			if size, ok := parseSize(text); ok && key.Value == FactorTransfer {
				text = FormatSize(size)
			}
			m[key.Value] = append(m[key.Value], text)
		})
	})
	if len(m) == 0 {
		p.fail(n, "an empty element of exclude leaves nothing to run")
	}
	p.spec.Exclude = append(p.spec.Exclude, m)
	p.exclude = append(p.exclude, n)
}

// baseName is the name of a file without its folders and its ending.
func baseName(file string) string { return strings.TrimSuffix(filepath.Base(file), filepath.Ext(file)) }

// errNothing says that a matrix has no cell.
var errNothing = errors.New("the matrix has no combination that is not excluded")
