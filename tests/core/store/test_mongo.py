import pytest
from hansa.store.mongo import MongoStore
from hansa.testing.store_suite import StoreSuite
class TestMongo(StoreSuite):
    @pytest.fixture
    async def store(self, mongo_url):
        s = MongoStore(mongo_url); await s.open(); yield s; await s.close()
