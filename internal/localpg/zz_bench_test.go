package localpg

import (
	"context"
	"testing"
	"time"
)

func TestMeasure(t *testing.T) {
	for range 3 {
		data := openFolderForAll(t) + "/d"
		for i := range 3 {
			b := time.Now()
			s, err := Start(context.Background(), Options{Data: data, Durable: true})
			if err != nil {
				t.Fatal(err)
			}
			a := time.Since(b)
			b = time.Now()
			s.Stop()
			t.Log("durable", i, a.Round(time.Millisecond), "stop", time.Since(b).Round(time.Millisecond))
		}
		b := time.Now()
		s, err := Start(context.Background(), Options{})
		if err != nil {
			t.Fatal(err)
		}
		a := time.Since(b)
		b = time.Now()
		s.Stop()
		t.Log("temporary", a.Round(time.Millisecond), "stop", time.Since(b).Round(time.Millisecond))
	}
}
