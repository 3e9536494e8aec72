// A second opinion on a history of holdfast-chaos: Porcupine searches for a linearization by times alone, with the
// small model below. Usage and what the model leaves out: README.md. Not part of any build of holdfast.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

type line [2]interface{} // sku, quantity

type input struct {
	Op, Sku, Order, Name, Owner string
	Delta, Token                int64
	Lines                       []line
	Restock                     bool
}

type output struct {
	Known              bool // there was a return
	Code, Order, State string
	Stock              map[string][3]int64
	Token              int64
}

type event struct {
	Partition, Kind string
	Client, Id      int
	Input           input
	Output          output
}

// State is a string, so that Porcupine can compare it: JSON of this, with sorted keys.
type shop struct {
	Stock  map[string][3]int64
	Orders map[string]order
}

type order struct {
	Lines  map[string]int64
	Status string
}

func decode(s string) shop {
	v := shop{map[string][3]int64{}, map[string]order{}}
	if s != "" {
		if err := json.Unmarshal([]byte(s), &v); err != nil {
			panic(err)
		}
	}
	return v
}

func encode(v shop) string {
	b, err := json.Marshal(v) // maps are written in order of their keys
	if err != nil {
		panic(err)
	}
	return string(b)
}

func (v shop) move(lines map[string]int64, available, reserved, sold int64) {
	for sku, n := range lines {
		s := v.Stock[sku]
		v.Stock[sku] = [3]int64{s[0] + available*n, s[1] + reserved*n, s[2] + sold*n}
	}
}

// An answer that was given must fit; one that was not may be anything.
func fits(v shop, out output) bool {
	for sku, s := range out.Stock {
		if v.Stock[sku] != s {
			return false
		}
	}
	return true
}

func stockStep(state string, in input, out output) (bool, string) {
	v := decode(state)
	if out.Known && out.Code != "OK" {
		return fits(v, out), state // refusals change nothing; the reasons are the witness check's to judge
	}
	o, there := v.Orders[in.Order]
	switch in.Op {
	case "sku_put":
		v.Stock[in.Sku] = [3]int64{}
	case "adjust":
		v.move(map[string]int64{in.Sku: in.Delta}, 1, 0, 0)
	case "place":
		lines := map[string]int64{}
		for _, l := range in.Lines {
			lines[l[0].(string)] += int64(l[1].(float64))
		}
		v.move(lines, -1, 1, 0)
		v.Orders[out.Order] = order{lines, "pending_payment"}
	case "cancel", "expire":
		if !there || o.Status != "pending_payment" {
			return false, state
		}
		v.move(o.Lines, 1, -1, 0)
		v.Orders[in.Order] = order{o.Lines, map[string]string{"cancel": "cancelled", "expire": "expired"}[in.Op]}
	case "pay":
		switch {
		case !there:
			return false, state
		case o.Status == "pending_payment" && (!out.Known || out.State == "paid"):
			v.move(o.Lines, 0, -1, 1)
			v.Orders[in.Order] = order{o.Lines, "paid"}
		case o.Status == "expired" && out.Known && out.State == "paid":
			v.move(o.Lines, -1, 0, 1)
			v.Orders[in.Order] = order{o.Lines, "paid"}
		case o.Status == "expired":
			v.Orders[in.Order] = order{o.Lines, "refund_due"}
		default:
			return false, state
		}
	case "refund":
		if !there || (o.Status != "paid" && o.Status != "refund_due") {
			return false, state
		}
		if o.Status == "paid" {
			back := int64(0)
			if in.Restock {
				back = 1
			}
			v.move(o.Lines, back, 0, -1)
		}
		v.Orders[in.Order] = order{o.Lines, "refunded"}
	}
	return fits(v, out), encode(v)
}

// A lease: the highest token that was given, as text. Expiry is time, which this model has not: tokens only.
func leaseStep(state string, in input, out output) (bool, string) {
	var highest int64
	fmt.Sscan(state, &highest)
	if in.Op != "lease_acquire" || !out.Known || out.Code != "OK" {
		return true, state
	}
	return out.Token >= highest, fmt.Sprint(out.Token)
}

func model(lease bool) porcupine.Model {
	step := stockStep
	if lease {
		step = leaseStep
	}
	return porcupine.Model{
		Init: func() interface{} { return "" },
		Step: func(state, in, out interface{}) (bool, interface{}) {
			ok, next := step(state.(string), in.(input), out.(output))
			return ok, next
		},
	}
}

func main() {
	f, err := os.Open(os.Args[1])
	if err != nil {
		panic(err)
	}
	partitions := map[string][]porcupine.Event{}
	open := map[string]map[int]porcupine.Event{}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<24)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			panic(err)
		}
		if open[e.Partition] == nil {
			open[e.Partition] = map[int]porcupine.Event{}
		}
		next := porcupine.Event{ClientId: e.Id, Id: e.Id} // each operation a client of its own: one may wait for ever
		if e.Kind == "call" {
			next.Kind, next.Value = porcupine.CallEvent, e.Input
			open[e.Partition][e.Id] = next
		} else {
			e.Output.Known = true
			next.Kind, next.Value = porcupine.ReturnEvent, e.Output
			delete(open[e.Partition], e.Id)
		}
		partitions[e.Partition] = append(partitions[e.Partition], next)
	}
	var names []string
	for name, events := range partitions {
		names = append(names, name)
		for id := range open[name] { // never answered: may take effect until the end
			events = append(events, porcupine.Event{ClientId: id, Id: id, Kind: porcupine.ReturnEvent, Value: output{}})
		}
		partitions[name] = events
	}
	sort.Strings(names)
	bad := false
	for _, name := range names {
		result := porcupine.CheckEventsTimeout(model(strings.HasPrefix(name, "lease ")), partitions[name], 5*time.Minute)
		fmt.Println(name, result)
		bad = bad || result == porcupine.Illegal
	}
	if bad {
		os.Exit(1)
	}
}
