package fsconf

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Error is a line of the text that makes no sense.
type Error struct {
	Line int // counted from 1; 0 when no single line is to blame
	Msg  string
}

// Error says which line is wrong and why.
func (e *Error) Error() string {
	if e.Line == 0 {
		return "fs.conf: " + e.Msg
	}
	return fmt.Sprintf("fs.conf line %d: %s", e.Line, e.Msg)
}

// Parse reads a configuration text. Keys and section names are compared
// without regard to case. What Parse does not know is skipped and noted in
// Warnings; what it knows must be valid. The error is an *Error.
func Parse(text string) (*Config, error) {
	p := parser{conf: &Config{Text: text}}
	if len(text) > MaxText {
		return nil, &Error{Msg: fmt.Sprintf("%d bytes of text, more than %d", len(text), MaxText)}
	}
	for i, line := range joinLines(text) {
		p.line = i
		if err := p.oneLine(line); err != nil {
			return nil, p.located(err)
		}
	}
	if n := len(p.open); n > 0 {
		return nil, &Error{Line: p.openLine[n-1], Msg: fmt.Sprintf("section <%s> is never closed", p.open[n-1])}
	}
	if err := p.check(); err != nil {
		return nil, err
	}
	return p.conf, nil
}

type parser struct {
	conf     *Config
	line     int      // of the text, counted from 1
	open     []string // lower-case names of the open sections
	openLine []int
	skip     int // depth of open at which an unknown section began, 0 none
	rec      recordState
}

// recordState is what is collected for the open <FileSystem> and
// <ServerOptions> sections.
type recordState struct {
	fs  *FileSystem
	srv *Server
}

func (p *parser) located(err error) error {
	var e *Error
	if errors.As(err, &e) {
		return err
	}
	return &Error{Line: p.line, Msg: err.Error()}
}

func (p *parser) warn(format string, args ...any) {
	p.conf.Warnings = append(p.conf.Warnings, fmt.Sprintf("line %d: ", p.line)+fmt.Sprintf(format, args...))
}

// joinLines yields the lines of text by number, with a backslash at the end of
// a line joining it to the next.
func joinLines(text string) func(yield func(int, string) bool) {
	return func(yield func(int, string) bool) {
		n, start, held := 0, 0, ""
		for line := range strings.Lines(text) {
			n++
			line = strings.TrimRight(line, "\r\n")
			if held == "" {
				start = n
			}
			if s, ok := strings.CutSuffix(line, `\`); ok {
				held += s + " "
				continue
			}
			if !yield(start, held+line) {
				return
			}
			held = ""
		}
		if held != "" {
			yield(start, held)
		}
	}
}

// sections maps each section to the one it must stand in, "" for the top.
var sections = map[string]string{
	"defaults": "", "aliases": "", "filesystem": "", "serveroptions": "", "security": "defaults",
	"metahandleranges": "filesystem", "datahandleranges": "filesystem", "storagehints": "filesystem",
	"distribution": "filesystem", "exportoptions": "filesystem",
}

func (p *parser) oneLine(line string) error {
	line = strings.TrimSpace(line)
	if line == "" || line[0] == '#' {
		return nil
	}
	if line[0] == '<' {
		if i := strings.IndexByte(line, '#'); i > 0 {
			line = strings.TrimSpace(line[:i])
		}
		name, ok := strings.CutSuffix(line[1:], ">")
		if !ok {
			return fmt.Errorf("section %q has no closing bracket", line)
		}
		if s, closing := strings.CutPrefix(name, "/"); closing {
			return p.closeSection(strings.ToLower(strings.TrimSpace(s)))
		}
		return p.openSection(strings.ToLower(strings.TrimSpace(name)))
	}
	words, err := split(line)
	if err != nil || len(words) == 0 || p.skip > 0 {
		return err
	}
	key, args := strings.ToLower(words[0]), words[1:]
	if len(p.open) == 0 {
		return fmt.Errorf("key %q stands outside of any section", words[0])
	}
	section := p.open[len(p.open)-1]
	known, err := p.key(section, key, args)
	if err != nil {
		return fmt.Errorf("%s: %w", words[0], err)
	}
	if !known && !slices.Contains(ignored, key) {
		p.warn("key %s in <%s> is not known and ignored", words[0], section)
	}
	return nil
}

func (p *parser) openSection(name string) error {
	p.open = append(p.open, name)
	p.openLine = append(p.openLine, p.line)
	if p.skip > 0 {
		return nil
	}
	parent, known := sections[name]
	if name == "security" && len(p.open) == 2 && p.open[0] == "serveroptions" {
		parent = "serveroptions"
	}
	if !known {
		p.warn("section <%s> is not known and ignored", name)
		p.skip = len(p.open)
		return nil
	}
	at := ""
	if n := len(p.open); n > 1 {
		at = p.open[n-2]
	}
	if at != parent {
		return fmt.Errorf("section <%s> must stand in <%s>, not in <%s>", name, cmp.Or(parent, "the top level"), cmp.Or(at, "the top level"))
	}
	switch name {
	case "filesystem":
		p.rec.fs = &FileSystem{
			line: p.line, FileStuffing: true, FlowBufferSize: 262144, FlowBuffers: 8,
			TreeWidth: 2, TreeThreshold: 2, DistrDirServersInitial: 1, DistrDirServersMax: 1, DistrDirSplitSize: 100,
			Hints: StorageHints{SyncMeta: true, Method: "alt-aio"},
		}
	case "serveroptions":
		p.rec.srv = &Server{line: p.line}
	}
	return nil
}

func (p *parser) closeSection(name string) error {
	n := len(p.open)
	if n == 0 {
		return fmt.Errorf("</%s> closes a section that is not open", name)
	}
	if p.open[n-1] != name {
		return fmt.Errorf("</%s> closes <%s> of line %d", name, p.open[n-1], p.openLine[n-1])
	}
	p.open, p.openLine = p.open[:n-1], p.openLine[:n-1]
	if p.skip > 0 {
		if p.skip == n {
			p.skip = 0
		}
		return nil
	}
	switch name {
	case "filesystem":
		p.conf.FileSystems = append(p.conf.FileSystems, *p.rec.fs)
	case "serveroptions":
		if p.rec.srv.Alias == "" {
			return &Error{Line: p.rec.srv.line, Msg: "<ServerOptions> names no Server"}
		}
		if slices.ContainsFunc(p.conf.Servers, func(s Server) bool { return s.Alias == p.rec.srv.Alias }) {
			return &Error{Line: p.rec.srv.line, Msg: fmt.Sprintf("a second <ServerOptions> of server %q", p.rec.srv.Alias)}
		}
		p.conf.Servers = append(p.conf.Servers, *p.rec.srv)
	}
	return nil
}

// split cuts a line into words; a word may be in double or single quotes, and
// a word that begins with # begins a comment.
func split(line string) ([]string, error) {
	var out []string
	for {
		line = strings.TrimLeft(line, " \t")
		if line == "" || line[0] == '#' {
			return out, nil
		}
		if q := line[0]; q == '"' || q == '\'' {
			end := strings.IndexByte(line[1:], q)
			if end < 0 {
				return nil, fmt.Errorf("quote %c is never closed", q)
			}
			out = append(out, line[1:1+end])
			line = line[end+2:]
			continue
		}
		end := strings.IndexAny(line, " \t")
		if end < 0 {
			return append(out, line), nil
		}
		out = append(out, line[:end])
		line = line[end:]
	}
}

// check is what can only be judged once the whole text is read.
func (p *parser) check() error {
	c := p.conf
	if len(c.Aliases) == 0 {
		return &Error{Msg: "no Alias in <Aliases>: no server is known"}
	}
	if len(c.FileSystems) == 0 {
		return &Error{Msg: "no <FileSystem> section"}
	}
	for i := range c.Servers {
		if !p.hasAlias(c.Servers[i].Alias) {
			return &Error{Line: c.Servers[i].line, Msg: fmt.Sprintf("server %q has no Alias", c.Servers[i].Alias)}
		}
	}
	for i := range c.FileSystems {
		if err := p.checkFS(&c.FileSystems[i]); err != nil {
			return &Error{Line: c.FileSystems[i].line, Msg: "<FileSystem> " + err.Error()}
		}
		for j := range i {
			if c.FileSystems[j].Name == c.FileSystems[i].Name || c.FileSystems[j].ID == c.FileSystems[i].ID {
				return &Error{Line: c.FileSystems[i].line, Msg: fmt.Sprintf("<FileSystem> %q has the name or ID of an earlier one", c.FileSystems[i].Name)}
			}
		}
	}
	return nil
}

func (p *parser) checkFS(f *FileSystem) error {
	switch {
	case f.Name == "":
		return errors.New("has no Name")
	case f.ID == 0:
		return errors.New("has no ID")
	case len(f.Meta) == 0:
		return errors.New("has no <MetaHandleRanges>")
	case len(f.Data) == 0:
		return errors.New("has no <DataHandleRanges>")
	case f.DistrDirServersInitial > f.DistrDirServersMax:
		return fmt.Errorf("has DistrDirServersInitial %d above DistrDirServersMax %d", f.DistrDirServersInitial, f.DistrDirServersMax)
	}
	for _, h := range slices.Concat(f.Meta, f.Data) {
		if !p.hasAlias(h.Alias) {
			return fmt.Errorf("has a Range of %q, which has no Alias", h.Alias)
		}
		for _, r := range h.Ranges {
			f.owners = append(f.owners, owned{r, h.Alias})
		}
	}
	slices.SortFunc(f.owners, func(a, b owned) int { return cmp.Compare(a.First, b.First) })
	for i := 1; i < len(f.owners); i++ {
		if a, b := f.owners[i-1], f.owners[i]; b.First <= a.Last {
			return fmt.Errorf("has handle ranges of %s and %s that overlap at %d", a.alias, b.alias, b.First)
		}
	}
	if !slices.ContainsFunc(f.Meta, func(h HandleRange) bool {
		return slices.ContainsFunc(h.Ranges, func(r Range) bool { return r.First <= f.RootHandle && f.RootHandle <= r.Last })
	}) {
		return fmt.Errorf("has RootHandle %d, which is in no metadata handle range", f.RootHandle)
	}
	return nil
}

func (p *parser) hasAlias(name string) bool {
	return slices.ContainsFunc(p.conf.Aliases, func(a Alias) bool { return a.Name == name })
}

func oneWord(args []string) (string, error) {
	if len(args) != 1 {
		return "", fmt.Errorf("%d values instead of one", len(args))
	}
	return args[0], nil
}

func number(args []string, lo, hi int64) (int64, error) {
	s, err := oneWord(args)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not a number", s)
	}
	if n < lo || n > hi {
		return 0, fmt.Errorf("%d is not between %d and %d", n, lo, hi)
	}
	return n, nil
}

func yesNo(args []string) (bool, error) {
	s, err := oneWord(args)
	if err != nil {
		return false, err
	}
	switch strings.ToLower(s) {
	case "yes", "on", "true":
		return true, nil
	case "no", "off", "false":
		return false, nil
	}
	return false, fmt.Errorf("%q is neither yes nor no", s)
}

// list joins args, which may be cut at spaces, and cuts them at commas.
func list(args []string) []string {
	var out []string
	for _, a := range args {
		for s := range strings.SplitSeq(a, ",") {
			if s = strings.TrimSpace(s); s != "" {
				out = append(out, s)
			}
		}
	}
	return out
}

func numbers(args []string) ([]int, error) {
	var out []int
	for _, s := range list(args) {
		n, err := number([]string{s}, 0, math.MaxInt32)
		if err != nil {
			return nil, err
		}
		out = append(out, int(n))
	}
	if len(out) > 16 {
		return nil, fmt.Errorf("%d numbers, more than 16", len(out))
	}
	return out, nil
}

func ranges(args []string) ([]Range, error) {
	var out []Range
	for _, s := range list(args) {
		a, b, ok := strings.Cut(s, "-")
		if !ok {
			b = a
		}
		first, err1 := strconv.ParseUint(strings.TrimSpace(a), 10, 64)
		last, err2 := strconv.ParseUint(strings.TrimSpace(b), 10, 64)
		if err1 != nil || err2 != nil {
			return nil, fmt.Errorf("%q is not a handle range such as 3-1000", s)
		}
		if last < first || first == 0 {
			return nil, fmt.Errorf("handle range %q is empty or holds 0", s)
		}
		out = append(out, Range{first, last})
	}
	if len(out) == 0 {
		return nil, errors.New("no handle range")
	}
	return out, nil
}
