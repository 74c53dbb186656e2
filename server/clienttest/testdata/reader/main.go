// The reader reads a personal note with the generated client beside it.
package main

import (
	"context"
	"fmt"
	"net/http"
	"os"

	"github.com/google/uuid"
)

func main() {
	if err := read(context.Background(), os.Args[1], os.Args[2], uuid.MustParse(os.Args[3])); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func read(ctx context.Context, server, token string, id uuid.UUID) error {
	client, err := NewClientWithResponses(server, WithRequestEditorFn(func(_ context.Context, r *http.Request) error {
		r.Header.Set("Authorization", "Bearer "+token)
		return nil
	}))
	if err != nil {
		return err
	}
	one, err := client.GetNoteWithResponse(ctx, id, nil)
	if err != nil {
		return err
	}
	note := one.JSON200
	if note == nil || note.OrgId != nil || note.NotebookId != nil {
		return fmt.Errorf("the note: %s %s", one.Status(), one.Body)
	}
	fmt.Printf("note %s: %s; in no organization and no notebook; version %d by %s\n", note.Title, note.Body, note.Version, note.Owner.Name)
	me, err := client.GetMeWithResponse(ctx)
	if err != nil {
		return err
	}
	if me.JSON200 == nil || me.JSON200.Key != nil {
		return fmt.Errorf("me: %s %s", me.Status(), me.Body)
	}
	fmt.Printf("me %s: by no key\n", me.JSON200.Name)
	list, err := client.ListNotesWithResponse(ctx, &ListNotesParams{})
	if err != nil {
		return err
	}
	if list.JSON200 == nil || len(list.JSON200.Items) != 1 || list.JSON200.NextCursor != nil {
		return fmt.Errorf("the list: %s %s", list.Status(), list.Body)
	}
	fmt.Printf("the list: %s, and nothing follows\n", list.JSON200.Items[0].Title)
	none, err := client.GetNoteWithResponse(ctx, uuid.New(), nil)
	if err != nil {
		return err
	}
	if none.ApplicationproblemJSON404 == nil || none.ApplicationproblemJSON404.Detail == nil {
		return fmt.Errorf("another note: %s %s", none.Status(), none.Body)
	}
	fmt.Printf("another note: %d %s\n", none.StatusCode(), *none.ApplicationproblemJSON404.Detail)
	return nil
}
