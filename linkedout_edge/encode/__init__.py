"""From videos to stored tokens: what a call needs (`request`), how it is computed (`encoder`), and when (`service`)."""
