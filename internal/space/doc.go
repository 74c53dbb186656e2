// Package space makes the ids of what stands in a space. A space is what is kept together: a person's
// own notes, or all that is an organization's. Its id is the person's or the organization's, and each
// row of it carries that id in the column space_id.
package space
