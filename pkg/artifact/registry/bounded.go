package registry

import (
	"container/list"
	"sync"
)

// bounded is a map that forgets what was used least recently once it holds
// more than limit entries. It is safe for concurrent use.
type bounded[K comparable, V any] struct {
	limit   int
	evicted func(V) // may be nil; called without the lock held

	mu    sync.Mutex
	order *list.List // of bounded entries, most recently used first
	byKey map[K]*list.Element
}

type boundedEntry[K comparable, V any] struct {
	key   K
	value V
}

func newBounded[K comparable, V any](limit int, evicted func(V)) *bounded[K, V] {
	return &bounded[K, V]{limit: limit, evicted: evicted, order: list.New(), byKey: map[K]*list.Element{}}
}

func (b *bounded[K, V]) get(key K) (V, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e, ok := b.byKey[key]
	if !ok {
		var none V
		return none, false
	}
	b.order.MoveToFront(e)
	return e.Value.(boundedEntry[K, V]).value, true
}

func (b *bounded[K, V]) put(key K, value V) {
	b.getOrPut(key, func() V { return value }, true)
}

// getOrPut returns the value of key, made by create where there is none yet or
// where replace is set.
func (b *bounded[K, V]) getOrPut(key K, create func() V, replace bool) V {
	value, dropped, over := b.store(key, create, replace)
	if over && b.evicted != nil {
		b.evicted(dropped)
	}
	return value
}

func (b *bounded[K, V]) store(key K, create func() V, replace bool) (value, dropped V, over bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e, ok := b.byKey[key]; ok {
		b.order.MoveToFront(e)
		if replace {
			e.Value = boundedEntry[K, V]{key, create()}
		}
		return e.Value.(boundedEntry[K, V]).value, dropped, false
	}
	value = create()
	b.byKey[key] = b.order.PushFront(boundedEntry[K, V]{key, value})
	if b.order.Len() <= b.limit {
		return value, dropped, false
	}
	last := b.order.Back()
	entry := b.order.Remove(last).(boundedEntry[K, V])
	delete(b.byKey, entry.key)
	return value, entry.value, true
}

func (b *bounded[K, V]) remove(key K) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e, ok := b.byKey[key]; ok {
		b.order.Remove(e)
		delete(b.byKey, key)
	}
}

// values returns what is held, in no particular order.
func (b *bounded[K, V]) values() []V {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make([]V, 0, len(b.byKey))
	for e := b.order.Front(); e != nil; e = e.Next() {
		all = append(all, e.Value.(boundedEntry[K, V]).value)
	}
	return all
}
