package experiment

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// maxErrors is how many mistakes of a file are told at once.
const maxErrors = 10

// reader reads values out of YAML and collects what is wrong with them, each
// with its line.
type reader struct {
	file string
	errs []error
}

// What the YAML library says of a file that is no YAML; the lines of the first
// kind it counts from 0.
var (
	yamlParser = regexp.MustCompile(`did not find expected (',' or|'-' indicator|key|node content|<)`)
	yamlLine   = regexp.MustCompile(`^line (\d+): (.*)$`)
)

// syntaxError names the line of what the YAML library refuses.
func syntaxError(file string, err error) error {
	text, line := strings.TrimPrefix(err.Error(), "yaml: "), 0
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		line, _ = strconv.Atoi(m[1]) // digits
		text = m[2]
	}
	if yamlParser.MatchString(text) {
		line++
	}
	return fmt.Errorf("%s:%d: %s", file, max(line, 1), text)
}

// fail records a mistake at a node.
func (r *reader) fail(n *yaml.Node, format string, args ...any) {
	if len(r.errs) < maxErrors {
		r.errs = append(r.errs, fmt.Errorf("%s:%d: %s", r.file, n.Line, fmt.Sprintf(format, args...)))
	}
}

func (r *reader) err() error { return errors.Join(r.errs...) }

// target is the node that an alias stands for.
func target(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// pairs calls f with each key of a mapping and what it stands for.
func (r *reader) pairs(n *yaml.Node, what string, f func(key, value *yaml.Node)) {
	n = target(n)
	if n.Kind != yaml.MappingNode {
		r.fail(n, "%s must be a mapping, KEY: VALUE", what)
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if seen[key.Value] {
			r.fail(key, "%q is given twice", key.Value)
			continue
		}
		seen[key.Value] = true
		f(key, target(n.Content[i+1]))
	}
}

// fields reads a mapping of which the keys are known.
func (r *reader) fields(n *yaml.Node, what string, known map[string]func(*yaml.Node)) {
	r.pairs(n, what, func(key, value *yaml.Node) {
		read := known[key.Value]
		if read == nil {
			r.fail(key, "%s has no %q; there are %s", what, key.Value, strings.Join(sorted(known), ", "))
			return
		}
		read(value)
	})
}

func sorted[V any](m map[string]V) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// each calls f with the elements of a list, or with the one value that stands
// in its place.
func (r *reader) each(n *yaml.Node, f func(*yaml.Node)) {
	if n.Kind != yaml.SequenceNode {
		f(n)
		return
	}
	if len(n.Content) == 0 {
		r.fail(n, "an empty list leaves nothing to run")
	}
	for _, e := range n.Content {
		f(target(e))
	}
}

// list reads one value or several, each of which must be there once.
func list[T comparable](r *reader, to *[]T, read func(*yaml.Node, *T)) func(*yaml.Node) {
	return func(n *yaml.Node) {
		*to = nil
		r.each(n, func(e *yaml.Node) {
			var v T
			before := len(r.errs)
			read(e, &v)
			if len(r.errs) == before && slices.Contains(*to, v) {
				r.fail(e, "%q is there twice", e.Value)
			}
			*to = append(*to, v)
		})
	}
}

// to makes a reader of one value into a field.
func to[T any](v *T, read func(*yaml.Node, *T)) func(*yaml.Node) {
	return func(n *yaml.Node) { read(n, v) }
}

func (r *reader) text(n *yaml.Node, v *string) {
	if n.Kind != yaml.ScalarNode {
		r.fail(n, "want text")
		return
	}
	*v = strings.TrimSpace(n.Value)
}

// oneOf reads one of the given words.
func (r *reader) oneOf(words ...string) func(*yaml.Node, *string) {
	return func(n *yaml.Node, v *string) {
		if !slices.Contains(words, n.Value) || n.Kind != yaml.ScalarNode {
			r.fail(n, "%q is none of %s", n.Value, strings.Join(words, ", "))
			return
		}
		*v = n.Value
	}
}

func (r *reader) boolean(n *yaml.Node, v *bool) {
	switch n.Value {
	case "true", "yes", On:
		*v = true
	case "false", "no", Off:
		*v = false
	default:
		r.fail(n, "%q is neither true nor false", n.Value)
	}
}

// integer reads a number between least and most.
func (r *reader) integer(least, most int) func(*yaml.Node, *int) {
	return func(n *yaml.Node, v *int) {
		i, err := strconv.Atoi(n.Value)
		if err != nil || i < least || i > most {
			r.fail(n, "%q is not a number from %d to %d", n.Value, least, most)
			return
		}
		*v = i
	}
}

func (r *reader) seed(n *yaml.Node, v *int64) {
	i, err := strconv.ParseInt(n.Value, 10, 64)
	if err != nil {
		r.fail(n, "%q is not an integer", n.Value)
		return
	}
	*v = i
}

// duration reads a time between least and most.
func (r *reader) duration(least, most time.Duration) func(*yaml.Node, *time.Duration) {
	return func(n *yaml.Node, v *time.Duration) {
		d, err := time.ParseDuration(n.Value)
		if err != nil || d < least || d > most {
			r.fail(n, "%q is not a time from %v to %v, such as 10ms, 2s, 1m30s", n.Value, least, most)
			return
		}
		*v = d
	}
}

// size reads a number of bytes up to most.
func (r *reader) size(most int64) func(*yaml.Node, *int64) {
	return func(n *yaml.Node, v *int64) {
		b, ok := parseSize(n.Value)
		if !ok || b < 1 || b > most {
			r.fail(n, "%q is not a size from 1B to %s, such as 512, 4KiB, 1MiB", n.Value, FormatSize(most))
			return
		}
		*v = b
	}
}

// parseSize reads what FormatSize writes, and K, M and G for KiB, MiB and GiB.
func parseSize(s string) (int64, bool) {
	s = strings.TrimSpace(s)
	digits := strings.TrimRight(s, "KMGiBkmgb")
	unit := int64(0)
	for _, u := range units {
		suffix := strings.ToUpper(s[len(digits):])
		if suffix == strings.ToUpper(u.name) || suffix == strings.ToUpper(u.name[:1]) || suffix == "" && u.size == 1 {
			unit = u.size
		}
	}
	n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
	if err != nil || unit == 0 || n < 0 || n > (1<<62)/unit {
		return 0, false
	}
	return n * unit, true
}
