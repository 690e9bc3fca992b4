"""A project of one app. Each test puts its database in place, see conftest.py."""

SECRET_KEY = "a key that is long enough for everybody"
INSTALLED_APPS = ["router.django", "django.contrib.contenttypes", "tests.django.shop"]
DATABASES: dict[str, dict[str, object]] = {}
USE_TZ = True
ROOT_URLCONF = "tests.django.urls"
MIDDLEWARE = ["router.django.middleware.PinMiddleware"]
ALLOWED_HOSTS = ["testserver", "127.0.0.1"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
