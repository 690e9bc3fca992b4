"""For gunicorn: gevent's workers of an application that is loaded before they are forked."""

from gevent import monkey

# gunicorn would do it in the worker, when the application is loaded already.
monkey.patch_all()

worker_class = "gevent"
preload_app = True
