package errno

import (
	"errors"
	"fmt"
)

// someErrors is how many errors Some spells out.
const someErrors = 3

// Some joins errs for people to read: the first few, and how many more there
// are. Those that are nil do not count; without others it returns nil.
func Some(errs []error) error {
	var some []error
	more := 0
	for _, err := range errs {
		switch {
		case err == nil:
		case len(some) < someErrors:
			some = append(some, err)
		default:
			more++
		}
	}
	if more > 0 {
		some = append(some, fmt.Errorf("and %d more", more))
	}
	return errors.Join(some...)
}
