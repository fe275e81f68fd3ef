"""Several actors behind one face: routers choose among actors, pools also spawn and supervise them."""
