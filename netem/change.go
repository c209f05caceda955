package netem

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

// A Direction is a direction of a link, as the stack at the link sees it.
type Direction uint8

// The directions.
const (
	Write Direction = 1 << iota // of the packets that the stack writes
	Read                        // of the packets that the stack reads
	Both  = Write | Read
)

// EventKind says what an [Event] tells of.
type EventKind uint8

// The kinds of events. A packet that is sent on a line has one EventSent, and then, unless it is
// still under way, one EventArrived or EventDropped.
const (
	EventSent       EventKind = iota // the packet has come to the line
	EventArrived                     // it has come to the end of the line
	EventDropped                     // it is gone; Reason says why
	EventDuplicated                  // it has been copied; each copy has an EventArrived, or an EventDropped, too
	EventCorrupted                   // one of its bits is about to be flipped
	EventDelayed                     // it is held back, by Reorder or by a script
)

var eventKinds = [...]string{"sent", "arrived", "dropped", "duplicated", "corrupted", "delayed"}

// String returns the kind in lower case: "sent", "arrived", "dropped", "duplicated", "corrupted" or
// "delayed".
func (k EventKind) String() string {
	if int(k) < len(eventKinds) {
		return eventKinds[k]
	}
	return fmt.Sprintf("EventKind(%d)", uint8(k))
}

// An Event tells what happens to a packet on its way through a [Switch].
type Event struct {
	Time      time.Time
	Link      string    // the name of the port or trunk
	Direction Direction // which of its directions; of a trunk, Write is away from the Switch that made it
	Kind      EventKind

	// Reason says why a packet is dropped: "lost" (Loss or Burst), "queue full" (Queue), "limit"
	// (Limit), "cut", "no port" (no port has its destination), or what a script says.
	Reason string

	Packet *Packet // valid during the call only
}

// ways are the two directions of a link that can be changed at run time.
type ways struct {
	sched   *scheduler
	out, in *line // what the stack writes, and what it reads
	mtu     int
	where   string // for errors: "netem: impair"

	mu   sync.Mutex // makes changes come in the order in which path has them
	path Path
}

// complete checks a path, and fills in the defaults.
func (w *ways) complete(path *Path) error {
	if err := path.Write.complete(w.mtu); err != nil {
		return fmt.Errorf("%s: Write.%w", w.where, err)
	}
	if err := path.Read.complete(w.mtu); err != nil {
		return fmt.Errorf("%s: Read.%w", w.where, err)
	}
	return nil
}

func (w *ways) set(path Path) error {
	if err := w.complete(&path); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	path.Seed = w.path.Seed
	w.path = path
	w.sched.change(func() {
		w.out.model.set(&path.Write)
		w.in.model.set(&path.Read)
	})
	return nil
}

func (w *ways) get() Path {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.path
}

func (w *ways) setFlows(list []FlowPath) error {
	var out, in []class
	for i, f := range list {
		if f.Match == nil {
			return fmt.Errorf("%s: flow path %d: Match is nil", w.where, i)
		}
		if err := w.complete(&f.Path); err != nil {
			return err
		}
		for _, c := range []struct {
			list *[]class
			imp  *Impairment
		}{{&out, &f.Path.Write}, {&in, &f.Path.Read}} {
			k := newClass(c.imp)
			k.match = f.Match
			*c.list = append(*c.list, k)
		}
	}
	w.sched.change(func() {
		w.out.model.classes, w.in.model.classes = out, in
		w.out.model.path++
		w.in.model.path++
	})
	return nil
}

// each calls f between two instants for the models of some directions.
func (w *ways) each(d Direction, f func(m *model)) {
	w.sched.change(func() {
		if d&Write != 0 {
			f(w.out.model)
		}
		if d&Read != 0 {
			f(w.in.model)
		}
	})
}

func (w *ways) cut(d Direction, cut bool) { w.each(d, func(m *model) { m.cut = cut }) }

func (w *ways) script(d Direction, f func(*Packet) Verdict) {
	w.each(d, func(m *model) { m.script = f })
}

func (w *ways) stats() Stats {
	w.sched.mu.Lock()
	defer w.sched.mu.Unlock()
	return Stats{Write: w.out.model.counts, Read: w.in.model.counts}
}

// Set changes what happens to packets, from the present instant on. Packets that are already on
// their way, also those that wait in a Queue, arrive as they would have; the new path begins with
// an empty queue, and if it is faster, packets on it overtake those. Path.Seed is ignored: the
// draws go on as before. Set returns an error if a field of path is out of range, and changes
// nothing then. To change one direction, change a field of what [Impaired.Path] returns.
//
// A change is made between two instants: whether a packet of the same instant is written before or
// after the call of Set makes no difference, as its fate is decided with the new path 1 ns later.
// This is true of [Impaired.SetFlows], [Impaired.Cut], [Impaired.Heal] and [Impaired.Script] too.
func (im *Impaired) Set(path Path) error { return im.ways.set(path) }

// Path returns what [Impair] or the last [Impaired.Set] was given, with the defaults filled in.
func (im *Impaired) Path() Path { return im.ways.get() }

// SetFlows sets what happens to the packets of some flows instead of what the link's Path says. A
// packet has the Path of the first element of list that matches it. Each call replaces the list of
// the one before; with an empty list, all packets have the link's Path again. SetFlows returns an
// error if a Match is nil, or a field of a Path is out of range, and changes nothing then.
func (im *Impaired) SetFlows(list ...FlowPath) error { return im.ways.setFlows(list) }

// Cut makes the link lose all packets in the directions of d. A packet is lost if the direction is
// cut when the packet is written, or when it would arrive; so a packet that is on its way longer
// than the cut lasts survives it. Cuts do not nest.
func (im *Impaired) Cut(d Direction) { im.ways.cut(d, true) }

// Heal ends the effect of [Impaired.Cut] in the directions of d.
func (im *Impaired) Heal(d Direction) { im.ways.cut(d, false) }

// Script makes the link ask f about each packet of the directions of d, before anything else
// happens to the packet. If f is nil, the directions have no script any more, which they have not
// at first.
//
// The calls come one after the other, in an order that is the same in every run, with a lock of the
// link held: f must return soon, and must not call the link or a stack that uses it.
func (im *Impaired) Script(d Direction, f func(*Packet) Verdict) { im.ways.script(d, f) }

var errNilLink = errors.New("netem: impair: the link is nil")
