"""What a static page reads: one project as the files that Trackio's dashboard fetches when there is no server."""
