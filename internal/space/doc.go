// Package space makes the ids of things in a space. A space is what is kept together: a person's own notes, or all
// that an organization owns. Its id is the person's or the organization's, and each of its rows has it in the
// column space_id.
package space
