"""Draw a plan: as text, as a Mermaid flowchart, as SVG. Pure: a plan in, a text out."""
