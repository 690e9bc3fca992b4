"""``ENGINE: "router.django.gis"``: GeoDjango on PostGIS, each statement routed."""
