package collective

import (
	"cmp"
	"container/list"
)

// recent keeps what was asked for last, of at most maxHabits names, or as many as
// limit said. The zero value is ready.
type recent[N comparable, V any] struct {
	byName map[N]*list.Element
	order  list.List // of *named[N, V], the last used first
	most   int       // 0: maxHabits
}

func (r *recent[N, V]) limit(n int) *recent[N, V] {
	r.most = n
	return r
}

type named[N comparable, V any] struct {
	name  N
	value V
}

// get returns the value of name, a zero one if there is none.
func (r *recent[N, V]) get(name N) *V {
	if e := r.order.Front(); e != nil { // most often it is the last one again
		if n := e.Value.(*named[N, V]); n.name == name {
			return &n.value
		}
	}
	if e, ok := r.byName[name]; ok {
		r.order.MoveToFront(e)
		return &e.Value.(*named[N, V]).value
	}
	if r.byName == nil {
		r.byName = make(map[N]*list.Element)
	}
	n := &named[N, V]{name: name}
	r.byName[name] = r.order.PushFront(n)
	if r.order.Len() > cmp.Or(r.most, maxHabits) {
		last := r.order.Remove(r.order.Back()).(*named[N, V])
		delete(r.byName, last.name)
	}
	return &n.value
}

// look returns the value of name, nil if there is none, without making it the last
// used.
func (r *recent[N, V]) look(name N) *V {
	if e, ok := r.byName[name]; ok {
		return &e.Value.(*named[N, V]).value
	}
	return nil
}

// remove forgets name.
func (r *recent[N, V]) remove(name N) {
	if e, ok := r.byName[name]; ok {
		r.order.Remove(e)
		delete(r.byName, name)
	}
}
