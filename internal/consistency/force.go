package consistency

import "fmt"

// HereXattr is a virtual extended attribute of everything on a mount: a Here in
// JSON. It is not stored, not listed and cannot be set.
const HereXattr = Xattr + ".here"

// Source says why a mode is in force.
type Source string

// The sources of a mode, from the one that counts most on.
const (
	FromName      Source = "name"      // see Auto
	FromAttribute Source = "attribute" // set on it, or inherited when it was made
	FromMount     Source = "mount"     // nothing else says anything
)

// Here is what one mount makes of a file or directory.
type Here struct {
	Mode Mode   `json:"mode"` // of the next open; for a directory, of what will be made in it
	From Source `json:"from"`
	// How often the file is open on this mount in which mode: a change of the
	// mode does not reach those who have it open.
	Open map[Mode]int `json:"open,omitempty"`
}

// InForce returns the mode in which a file is opened, and why: by its name, by
// the mode own that was chosen for it, or by that of the mount. Neither of the
// latter need be set; without any, it is Strong.
func InForce(name string, own, mount Mode) (Mode, Source) {
	if m, ok := Auto(name); ok {
		return m, FromName
	}
	if own != Default {
		return own, FromAttribute
	}
	return mount.Or(Strong), FromMount
}

// MarshalText makes a mode its name, in JSON too.
func (m Mode) MarshalText() ([]byte, error) {
	if !m.Valid() {
		return nil, fmt.Errorf("no consistency mode has the number %d", uint8(m))
	}
	return []byte(m.String()), nil
}

// UnmarshalText is the reverse of MarshalText.
func (m *Mode) UnmarshalText(text []byte) (err error) {
	*m = Default
	if string(text) != Default.String() {
		*m, err = Parse(string(text))
	}
	return err
}
